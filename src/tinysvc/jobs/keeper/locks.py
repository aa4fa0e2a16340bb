"""File locks (flock) that show, without any clock, which server processes of a store are alive.

A lock belongs to an open file, not to a process: the kernel releases it when the last descriptor of that open file is
closed, also by SIGKILL. Two kinds are used:

    jobs.db-lock               held by the keeper only. No other process inherits it: it is free at the moment when the
                               keeper dies.
    jobs.db-servers/OWNER      held by a server process, its forkservers and their workers. It is free when all of them
                               are dead: nothing that this owner has started can still write.

Never remove the first. The second is removed by the keeper when the owner is dead; names of owners are not used twice.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...core.errors import ConfigurationError
from ...core.forks import detach_in_child

UNFINISHED = "new-"
"""Prefix of a lock file that its owner has not locked yet. Without it, the keeper could take a new owner for a dead
one."""


class FileLock:
    """A lock on a file, which is created if it is missing. A forked child of this process does not hold it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        detach_in_child(self, lambda lock: [lock.fileno()])

    def fileno(self) -> int:
        """The descriptor; -1 after `close`."""
        return self._descriptor

    def acquire(self) -> bool:
        """Take the lock without waiting. False if another process holds it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let another process take the lock."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def sign(self) -> None:
        """Write the pid of this process into the file, for people and `pid_in`. One write: no reader finds a half."""
        os.pwrite(self._descriptor, f"{os.getpid():<15}\n".encode(), 0)

    def close(self) -> None:
        """Release the lock, unless another process has inherited it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def servers_folder(store: Path) -> Path:
    """The folder of a store's owner locks and of the keeper's socket. Only this user may enter it.

    Raises:
        ConfigurationError: The folder belongs to another user.
    """
    folder = store.with_name(store.name + "-servers")
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    about = folder.stat()
    if about.st_uid != os.geteuid() or about.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} must belong to user {os.geteuid()} with mode 700, but it belongs to user {about.st_uid} with "
            f"mode {about.st_mode & 0o777:o}. All servers of a store run as one user; when none runs, remove the folder"
        )
    return folder


def lock_as_owner(folder: Path, owner: str) -> FileLock:
    """Create and lock the file of a new owner. It appears under its name when it is locked."""
    while True:
        lock = FileLock(folder / f"{UNFINISHED}{secrets.token_hex(8)}")
        lock.acquire()
        lock.sign()
        try:
            lock.path.rename(folder / owner)
        except FileNotFoundError:  # the keeper has removed it before it was locked
            lock.close()
            continue
        lock.path = folder / owner
        return lock


def owners_in(folder: Path) -> set[str]:
    """The owners that have a lock file: alive, or dead and not yet removed."""
    names = {name for name in os.listdir(folder) if not name.startswith(UNFINISHED)}
    return {name for name in names if not (folder / name).is_socket()}


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of this file. False if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_unfinished(folder: Path) -> None:
    """Remove lock files of owners that died before they had locked them."""
    for name in os.listdir(folder):
        if name.startswith(UNFINISHED) and not is_held(folder / name):
            (folder / name).unlink(missing_ok=True)


class Holder(NamedTuple):
    """A process that holds a lock."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def holders(path: Path) -> list[Holder]:
    """The processes that have the file open. Empty without /proc; processes of other users are missing."""
    found = []
    try:
        wanted = path.stat()
        pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []
    for pid in pids:
        with suppress(OSError):
            if any(_is_same(f"/proc/{pid}/fd/{name}", wanted) for name in os.listdir(f"/proc/{pid}/fd")):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(Holder(int(pid), command.strip()[:80]))
    return found


def _is_same(path: str, wanted: os.stat_result) -> bool:
    with suppress(OSError):  # closed meanwhile
        about = os.stat(path)
        return (about.st_dev, about.st_ino) == (wanted.st_dev, wanted.st_ino)
    return False


def pid_in(path: Path) -> int:
    """The pid of the process that has signed the lock file; 0 if it cannot be read."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0
