"""A local folder as a storage. It may be a network file system, too: there are no locks that must hold.

A key is created in three steps: a temporary file with its whole content, fsync, and a hard link to the final name.
`os.link` fails if that name exists, so a reader sees all of the content or nothing. An fsync of the folder makes the
name durable.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from ..core.units import MiB
from .durable_files import sync
from .errors import StoreMissing, StoreReadOnly, StoreRefused, StoreUnavailable
from .storage import MAX_DOCUMENT, Listing, MissingKey, StoredKey

STAGING = ".publishing"
"""The folder, inside the store, of publications that are not complete: on the same file system as the blobs."""
PIECE = MiB
"""Bytes of one read. From 256 KiB to 4 MiB there is no difference in speed."""

_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_MISSING = {errno.ENOENT, errno.ENOTDIR}


class FolderStorage:
    """A storage in a local folder, which the first publication creates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def url(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"<FolderStorage {self.folder}>"

    def create(self, key: str, content: bytes) -> bool:
        with self._writing(key), self._temporary() as temporary:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            return self._link(temporary, key)

    def upload(self, key: str, file: Path) -> bool:
        with self._writing(key), self._temporary() as temporary:
            if file.stat().st_nlink == 1 and _on_one_file_system(file, temporary.parent):
                temporary = file  # the content needs no copy
            else:
                shutil.copyfile(file, temporary)
            sync(temporary)
            os.chmod(temporary, temporary.stat().st_mode & 0o444)
            return self._link(temporary, key)

    def read(self, key: str) -> bytes:
        with self._reading(key), open(self.folder / key, "rb", opener=_regular) as file:
            content = file.read(MAX_DOCUMENT + 1)
        if len(content) > MAX_DOCUMENT:
            raise ValueError(f"{key} has more than {MAX_DOCUMENT} bytes")
        return content

    def chunks(self, key: str) -> Iterator[memoryview]:
        with self._reading(key), open(self.folder / key, "rb", buffering=0, opener=_regular) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            piece = memoryview(bytearray(PIECE))
            while count := file.readinto(piece):
                yield piece[:count]

    def find(self, key: str) -> StoredKey | None:
        try:
            with self._reading(key):
                found = os.stat(self.folder / key)
        except MissingKey:
            return None
        return StoredKey(key, found.st_size, found.st_mtime)

    def listing(self, folder: str) -> Listing:
        keys: list[StoredKey] = []
        folders: list[str] = []
        prefix = f"{folder}/" if folder else ""
        try:
            with self._reading(folder), os.scandir(self.folder / folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.name)
                        continue
                    with suppress(FileNotFoundError):  # it was removed after its folder was read
                        status = entry.stat()
                        keys.append(StoredKey(prefix + entry.name, status.st_size, status.st_mtime))
        except MissingKey:
            if not self.folder.is_dir():
                raise StoreMissing(f"the models folder {self.folder} does not exist") from None
        return Listing(tuple(keys), tuple(folders))

    def copy(self, key: str, new_key: str) -> None:
        with self._writing(new_key), self._reading(key):
            os.utime(self.folder / key)  # a link shares the time: the old name looks younger, and stays longer
            with suppress(FileExistsError):
                os.link(self.folder / key, self.folder / new_key)
            sync((self.folder / new_key).parent)

    def delete(self, key: str) -> None:
        with self._writing(""), suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self.folder / key)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        with self._writing(f"{STAGING}/any"):
            path = self.folder / STAGING / token_hex(8)
            path.mkdir()
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # a file system without locks: its age alone protects the folder from the sweep
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)

    def sweep_staging(self, older_than: float, dry_run: bool) -> list[str]:
        swept = []
        for path in (self.folder / STAGING).glob("*"):
            with suppress(FileNotFoundError):
                if time.time() - _newest(path) < older_than or _is_locked(path):
                    continue
                swept.append(str(path))
                if not dry_run:
                    with self._writing(""):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return swept

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        folder = self.folder / STAGING
        self._make(folder)
        temporary = folder / f"{token_hex(8)}.tmp"
        try:
            yield temporary
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _link(self, file: Path, key: str) -> bool:
        target = self.folder / key
        self._make(target.parent)
        try:
            os.link(file, target)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost, and then report that its own link exists.
            return file.stat().st_nlink > 1 and os.path.samefile(file, target)
        except OSError as error:
            if error.errno in _NO_LINKS and os.access(target.parent, os.W_OK):
                raise StoreRefused(
                    f"{self.folder}: the file system has no hard links ({error.strerror}), which create a file only if "
                    "it does not exist; use a folder on another file system, or an object store"
                ) from error
            raise
        sync(target.parent)
        return True

    def _make(self, folder: Path) -> None:
        """Create a folder and those above it durably."""
        if folder.is_dir():
            return
        if folder != self.folder:
            self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(parents=folder == self.folder)
            sync(folder.parent)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _MISSING:
                raise MissingKey(key) from error
            raise StoreUnavailable(f"{self.folder / key}: {error.strerror or error}") from error

    @contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            if key:
                self._make((self.folder / key).parent)
            yield
        except OSError as error:
            if error.errno in _READ_ONLY:
                raise StoreReadOnly(f"{self.folder} cannot be written to: {error.strerror}") from error
            raise StoreUnavailable(f"{self.folder / key}: {error.strerror or error}") from error


def _regular(path: str, flags: int) -> int:
    """Open a file. A named pipe, at which a reader would wait for ever, and a device are refused."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return descriptor


def _on_one_file_system(file: Path, folder: Path) -> bool:
    return file.stat().st_dev == folder.stat().st_dev


def _newest(path: Path) -> float:
    """When anything in a folder was changed last."""
    return max((each.lstat().st_mtime for each in (path, *path.rglob("*"))), default=0.0)


def _is_locked(path: Path) -> bool:
    """Whether a publisher on this machine still fills this folder. On a file system without locks, never."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
