"""`--stacks PID`: the Python stacks of all threads of a running server, its forkservers and its workers.

The processes write them themselves (core/stack_dumps.py), so this needs no right to trace them, only the same user.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..core.errors import ConfigurationError
from ..core.stack_dumps import DUMP_LIMIT, DUMP_SIGNAL, FILE_NAME, OWN_FILE_NAME, StackDump

PROC = Path("/proc")

INTERVAL = 0.01
"""Seconds between two looks at a dump."""


def stacks_of(pid: int) -> str:
    """The stacks of the process and of all processes of tinysvc that it has started.

    Raises:
        ConfigurationError: There is none, or another user has started it.
    """
    if sys.platform != "linux":
        raise ConfigurationError("--stacks needs /proc, which only Linux has")
    if not (PROC / str(pid)).exists():
        raise ConfigurationError(f"there is no process {pid}")
    texts = [text for each in (pid, *_descendants(pid)) if (text := _stacks(each))]
    if not texts:
        raise ConfigurationError(f"process {pid} is no process of tinysvc, and has started none; name that of a server")
    return "\n".join(texts)


def _descendants(pid: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += sorted(children.get(each, ()))
    yield from found[1:]


def _stacks(pid: int) -> str:
    """The stacks of one process; "" if it is not one of ours, or has ended."""
    try:
        process = os.pidfd_open(pid)  # from now on the pid is that of no other process
    except OSError:
        return ""
    try:
        path, kind = _file_of(pid)
        if path is None or not _handles_the_signal(pid):
            return ""
        file = os.open(path, os.O_RDWR)
        try:
            dump, end = StackDump(file), time.monotonic() + DUMP_LIMIT
            signal.pidfd_send_signal(process, DUMP_SIGNAL)
            while not dump.is_complete():
                if time.monotonic() > end:
                    return (
                        f"{kind} {pid} wrote nothing within {DUMP_LIMIT:g} s: it is stopped, or waits in the kernel\n"
                    )
                time.sleep(INTERVAL)
            return f"{kind} {pid}\n{dump.text()}"
        finally:
            os.close(file)
    except PermissionError:
        raise ConfigurationError(f"process {pid} belongs to another user; run this as its user, or as root") from None
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return ""
    finally:
        os.close(process)


def _file_of(pid: int) -> tuple[Path | None, str]:
    """The file to which the process writes its stacks, and what the process is. A server also has those of workers."""
    found: dict[str, Path] = {}
    for path in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            name = os.readlink(path).partition(" (")[0].removeprefix("/memfd:")
            found[name] = path
    if OWN_FILE_NAME in found:
        is_forkserver = b"forkserver_main" in (PROC / str(pid) / "cmdline").read_bytes()
        return found[OWN_FILE_NAME], "forkserver" if is_forkserver else "server process"
    return found.get(FILE_NAME), "worker"


def _handles_the_signal(pid: int) -> bool:
    """Whether the signal has a handler in the process: it would kill another one."""
    status = (PROC / str(pid) / "status").read_text()
    caught = status.partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (DUMP_SIGNAL - 1) & 1)
