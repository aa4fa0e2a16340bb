"""Large bodies and results, as files beside the store: a row of the store names its file.

A file is written, with fsync, before its row is committed. A crash between the two leaves a file without a row: `sweep`
removes it. A file is removed after the row that named it.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ...core.job_errors import StoreError, StoreFull
from ...core.units import KiB

INLINE = 64 * KiB
"""Bytes up to which content is a part of its row."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FsyncFailed(StoreError):
    """A failed fsync: the content of the disk is in doubt."""


class Files:
    """The folder of one store. All methods block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing: set[str] = set()  # written, but the row is not committed yet

    def write(self, name: str, content: bytes) -> str:
        """Write a file durably, and return its name. Call `settle` after the commit of its row, or `drop`."""
        name = f"{name}-{secrets.token_hex(4)}"
        self._writing.add(name)
        temporary = self.folder / f"{name}.tmp"
        try:
            self._make_folder()
            with open(temporary, "xb", opener=_private) as file:
                file.write(content)
                file.flush()
                _sync(file.fileno(), temporary)
            os.rename(temporary, self.folder / name)
            sync_folder(self.folder)
        except BaseException as error:
            self.drop(name)
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                kind = StoreFull if error.errno in FULL else StoreError
                raise kind(f"{self.folder}: {error.strerror or error}.") from error
            raise
        return name

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
            sync_folder(self.folder.parent)

    def settle(self, name: str) -> None:
        """The row is committed: `sweep` finds it there."""
        self._writing.discard(name)

    def drop(self, name: str) -> None:
        """The row was not committed."""
        self._writing.discard(name)
        self.remove([name])

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def reader(self, name: str) -> BinaryIO:
        """The file, opened: it can be read to its end even if it is removed meanwhile."""
        return open(self.folder / name, "rb")

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(OSError):
                (self.folder / name).unlink()

    def names(self) -> set[str]:
        """The files that are not being written."""
        with suppress(FileNotFoundError):
            found = {entry.name for entry in os.scandir(self.folder)}
            return {name for name in found if name.removesuffix(".tmp") not in self._writing}
        return set()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync(descriptor, folder)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, path: Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in FULL:  # delayed allocation: the content was never accepted
            raise
        raise FsyncFailed(f"fsync of {path} failed: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
