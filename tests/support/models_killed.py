"""Kills a publisher, a mover, a sweep and a fetch before each of their steps, and checks what is left. Run as a script.

A step is a call that changes the disk. For each one, a fork of this process does the work and is killed before that
step; then this process looks at the store as a reader. Prints a line for each step, as JSON.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tinysvc.models.errors import UnknownVersion
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store
from tinysvc.models.store import ModelStore

STEPS = ("mkdir", "link", "fsync", "chmod", "fchmod", "rename", "unlink", "rmdir", "utime")


class Killer:
    """Kills this process before one of its steps."""

    def __init__(self) -> None:
        self.left = -1
        self.report = -1
        for name in STEPS:
            setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if self.left == 0:
                os.write(self.report, f"{name} {self._path(args)}".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return None if name == "fsync" else function(*args, **options)  # the machine does not lose its power

        return step

    def _path(self, args: tuple[Any, ...]) -> str:
        """The last path of a call, without what differs between two runs."""
        path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else str(args[-1])
        if not path.startswith("/"):
            path = str(args[0])
        path = re.sub(r".*/(models|copies)\b", r"\1", path)
        return re.sub(r"[0-9a-f]{8,}", "#", path)

    def run(self, work: Callable[[], object], steps: int) -> str:
        """Do the work in a fork that is killed after so many steps: the step, or "" if the work has ended before."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.left, self.report = steps, write
            try:
                work()
            except BaseException as error:
                os.write(write, repr(error).encode())
                os._exit(1)
            os._exit(0)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with open(read, "rb") as report:
            step = report.read().decode()
        assert status in (0, signal.SIGKILL), step
        return step


def publish(store: ModelStore, content: bytes, alias: str = "") -> None:
    with store.publish("churn", alias=alias) as new:
        (new.path / "sub").mkdir()
        (new.path / "sub" / "weights.bin").write_bytes(content)


def check(store: ModelStore, copies: LocalCopies) -> None:
    """What a reader finds is whole, and everything goes on."""
    versions = store.versions("churn")
    assert versions
    for version in versions:
        assert store.verify("churn", version) == []
    for alias, entry in store.aliases("churn").items():
        assert store.manifest("churn", entry.version), alias
    for copy in copies.folder.glob("churn/*"):
        assert (copy / "files" / "sub" / "weights.bin").read_bytes()
    fetched = copies.fetch(store, "churn", versions[-1])
    assert Path(fetched.path, "sub", "weights.bin").read_bytes()
    publish(store, b"afterwards", "staging")
    assert store.resolve("churn@staging") == versions[-1] + 1
    store.sweep(older_than=0)
    swept = store.sweep(older_than=0)
    assert (swept.set_aside, swept.removed, swept.leftovers) == (0, 0, [])
    folder = Path(store.url)
    assert not [*(folder / ".publishing").iterdir(), *(folder / ".probe").iterdir()]
    used = {file.sha256 for version in store.versions("churn") for file in store.manifest("churn", version).files}
    assert {path.name for path in (folder / "churn" / "blobs").iterdir()} == used


def works(store: ModelStore, copies: LocalCopies) -> dict[str, Callable[[], object]]:
    return {
        "publish": lambda: publish(store, b"new", "production"),
        "move": lambda: store.move_alias("churn", "production", 1),
        "sweep": lambda: store.sweep(keep=1, older_than=0),
        "fetch": lambda: copies.fetch(store, "churn", 2),
    }


def main() -> None:
    killer = Killer()
    for name in sys.argv[1:]:
        for steps in range(1000):
            with TemporaryDirectory() as folder:
                store, copies = open_store(f"{folder}/models"), LocalCopies(Path(folder, "copies"))
                for number in range(4):
                    publish(store, b"%d" % number)
                store.move_alias("churn", "production", 2)
                step = killer.run(works(store, copies)[name], steps)
                try:
                    check(store, copies)
                except (AssertionError, UnknownVersion) as error:
                    raise AssertionError(f"{name} was killed before: {step}") from error
            if not step:
                break
            print(json.dumps([name, step]), flush=True)


if __name__ == "__main__":
    main()
