"""The disk after a power loss, from the system calls that strace has recorded.

The model is the strict one of POSIX. The content of a file is certain up to its last fsync; each 4 KiB of a later write
may be there or not. A name in a folder is certain up to the last fsync of the folder; later changes of names are there
up to some point. SQLite's shared-memory file is lost: it is not a part of the database.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink,mkdir"
PAGE = 4096
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def strace(*options: str) -> list[str]:
    """The start of a command line; skips the test where strace does not work."""
    command = shutil.which("strace")
    if command is None:
        pytest.skip("strace is not installed")
    probe = subprocess.run([command, "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace does not work here: {probe.stderr.strip()}")
    return [command, "-f", "-qq", *options]


def recorded(folder: Path, script: Path, scenario: str) -> list[Event]:
    """Run a scenario of store_child.py on `folder`/jobs.db, and return what it wrote."""
    log = folder.with_name("strace.log")
    options = ("-o", str(log), "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-e", "signal=none")
    command = [*strace(*options), sys.executable, str(script), str(folder / "jobs.db"), scenario]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=50)
    return list(_events(log.read_text(), folder))


@dataclass
class Event:
    """One system call. `begun` and `ended` are places in the record."""

    call: str
    begun: int
    ended: int
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    name: str = ""
    target: str = ""


def lines_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Whole calls with the places of their begin and end; strace writes a call of several threads in two lines."""
    begun: dict[str, tuple[int, str]] = {}
    for place, line in enumerate(text.splitlines()):
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = place, rest.removesuffix("<unfinished ...>").rstrip()
        elif rest.startswith("<... "):
            first, start = begun.pop(pid)
            yield first, place, start + rest.partition(" resumed>")[2]
        else:
            yield place, place, rest


def _events(text: str, folder: Path) -> Iterator[Event]:
    numbers = itertools.count(1)
    inodes: dict[str, int] = {"": 0}
    descriptors: dict[int, list[int]] = {}
    for begun, ended, line in sorted(lines_of(text), key=lambda each: each[1]):
        match = _CALL.match(line)
        if match is None or int(match[3]) < 0:
            continue
        call, result = match[1], int(match[3])
        texts = [bytes.fromhex(each.replace("\\x", "")) for each in _STRING.findall(match[2])]
        names = [_name(each, folder) for each in texts] if call in ("openat", "rename", "unlink", "mkdir") else []
        event = Event(call, begun, ended)
        if call == "openat":
            descriptors.pop(result, None)
            name = names[0]
            if name is None:
                continue
            if "O_CREAT" in match[2] and name not in inodes:
                inodes[name] = next(numbers)
                yield Event("create", begun, ended, inodes[name], name=name)
            elif "O_TRUNC" in match[2]:
                yield Event("ftruncate", begun, ended, inodes[name])
            if name in inodes:
                descriptors[result] = [inodes[name], 0]
        elif names:
            if names[0] is None:
                continue
            event.name = names[0]
            if call == "mkdir":
                inodes[event.name] = next(numbers)
                event.inode = inodes[event.name]
            else:
                event.inode = inodes.pop(event.name, 0)
            if call == "rename":
                event.target = names[1] or ""
                inodes[event.target] = event.inode
            yield event
        else:
            number = int(match[2].split(",")[0])
            if call == "write" and number == 1:
                yield Event("report", begun, ended, data=texts[0])
            elif number in descriptors:
                event.inode, position = descriptors[number]
                if call == "write":
                    event.offset, event.data = position, texts[0][:result]
                    descriptors[number][1] += result
                elif call == "pwrite64":
                    event.offset, event.data = int(match[2].rpartition(",")[2]), texts[0][:result]
                elif call == "ftruncate":
                    event.offset = int(match[2].rpartition(",")[2])
                yield event


def _name(path: bytes, folder: Path) -> str | None:
    """The path below the folder; None: elsewhere."""
    text = path.decode()
    if text == str(folder):
        return ""
    return text.removeprefix(f"{folder}/") if text.startswith(f"{folder}/") else None


@dataclass
class Disk:
    """What a power loss at one place of the record leaves."""

    files: dict[int, bytearray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def write(self, event: Event, pages: random.Random | None) -> None:
        """Apply a change of content; with `pages`, an arbitrary part of it."""
        file = self.files.setdefault(event.inode, bytearray())
        if event.call == "ftruncate":
            del file[event.offset :]
            file.extend(bytes(event.offset - len(file)))
            return
        for start in range(0, len(event.data), PAGE):
            if pages is None or pages.random() < 0.5:
                piece = event.data[start : start + PAGE]
                place = event.offset + start
                file.extend(bytes(max(0, place - len(file))))
                file[place : place + len(piece)] = piece

    def rename(self, event: Event) -> None:
        """Apply a change of names."""
        if event.call in ("create", "mkdir"):
            self.names[event.name] = event.inode
        elif event.call == "unlink":
            self.names.pop(event.name, None)
        elif event.name in self.names:
            self.names[event.target] = self.names.pop(event.name)

    def restore(self, events: list[Event], folder: Path) -> None:
        """Write the files into an empty folder."""
        folders = {event.inode for event in events if event.call == "mkdir"}
        for name, inode in sorted(self.names.items()):
            if inode in folders:
                (folder / name).mkdir()
            elif not name.endswith("-shm") and (folder / name).parent.exists():
                (folder / name).write_bytes(self.files.get(inode, b""))


NAMING = {"create", "mkdir", "unlink", "rename"}
CONTENT = {"write", "pwrite64", "ftruncate"}
SYNC = {"fsync", "fdatasync"}


def disk_at(events: list[Event], place: int, luck: str, seed: int = 0) -> Disk:
    """The disk after a power loss at `place`. `luck`: "none", "all" or "some" of what is uncertain is there."""
    pages = random.Random(seed)
    syncs = [event for event in events if event.call in SYNC and event.ended <= place]
    happened = [event for event in events if event.begun <= place]
    folders = {event.inode: event.name for event in events if event.call == "mkdir"} | {0: ""}
    disk = Disk()
    names = [event for event in happened if event.call in NAMING]

    def certain(event: Event) -> bool:
        inode = event.inode
        if event.call in NAMING:
            parent = os.path.dirname(event.name)
            inode = next(number for number, name in folders.items() if name == parent)
        return any(sync.inode == inode and event.ended < sync.begun for sync in syncs)

    uncertain = sum(not certain(event) for event in names)
    left = {"none": 0, "all": uncertain, "some": pages.randint(0, uncertain)}[luck]
    for event in names:
        if not certain(event):
            left -= 1
        if certain(event) or left >= 0:
            disk.rename(event)
    for event in happened:
        if event.call in CONTENT and (certain(event) or luck != "none"):
            disk.write(event, pages if luck == "some" and not certain(event) else None)
    return disk


def reports_before(events: list[Event], place: int) -> list[bytes]:
    """The lines that the process had written before the power loss."""
    lines = [event.data for event in events if event.call == "report" and event.begun <= place]
    return b"".join(lines).splitlines()
