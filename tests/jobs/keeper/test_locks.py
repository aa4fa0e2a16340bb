"""locks.py: locks that end with the last process that has them."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.jobs.keeper.locks import (
    UNFINISHED,
    FileLock,
    holders,
    is_held,
    lock_as_owner,
    owners_in,
    pid_in,
    remove_unfinished,
    servers_folder,
)


def test_lock_has_one_holder(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    first.close()
    second.close()
    second.close()
    assert second.fileno() == -1


def test_lock_is_held_until_the_last_descriptor_is_closed(tmp_path: Path) -> None:
    lock = lock_as_owner(tmp_path, "owner")
    inherited = os.dup(lock.fileno())
    lock.close()
    assert is_held(tmp_path / "owner")
    os.close(inherited)
    assert not is_held(tmp_path / "owner")


def test_forked_child_of_the_server_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    lock.acquire()
    ours, of_child = socket.socketpair()
    with ours, of_child:
        child = os.fork()
        if not child:
            ours.close()
            of_child.send(b"forked")
            of_child.recv(1)
            os._exit(0)
        of_child.close()
        ours.recv(6)
        lock.close()
        assert not is_held(tmp_path / "lock")
    os.waitpid(child, 0)


def test_missing_file_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "nothing")


def test_owner_is_listed_once_it_holds_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    acquire = FileLock.acquire

    def look_and_acquire(lock: FileLock) -> bool:
        seen.append(owners_in(tmp_path))
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", look_and_acquire)
    lock = lock_as_owner(tmp_path, "owner")
    assert seen == [set()]
    assert owners_in(tmp_path) == {"owner"}
    assert pid_in(tmp_path / "owner") == os.getpid()
    lock.close()


def test_owner_whose_unfinished_lock_was_removed_makes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = FileLock.acquire
    removed: list[Path] = []

    def too_late(lock: FileLock) -> bool:
        if not removed:
            removed.append(lock.path)
            remove_unfinished(tmp_path)
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", too_late)
    lock = lock_as_owner(tmp_path, "owner")
    assert removed
    assert removed[0].name.startswith(UNFINISHED)
    assert is_held(tmp_path / "owner")
    lock.close()


def test_locked_but_unfinished_file_is_kept(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / f"{UNFINISHED}1")
    lock.acquire()
    remove_unfinished(tmp_path)
    assert lock.path.exists()
    lock.close()
    remove_unfinished(tmp_path)
    assert not lock.path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_holders_are_named(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    [holder] = holders(lock.path)
    assert holder.pid == os.getpid()
    assert str(holder).startswith(f"process {os.getpid()} (")
    lock.close()
    assert not holders(lock.path)
    assert not holders(tmp_path / "nothing")


def test_unreadable_pid_is_zero(tmp_path: Path) -> None:
    (tmp_path / "owner").write_text("no number")
    assert pid_in(tmp_path / "owner") == pid_in(tmp_path / "nothing") == 0


def test_folder_of_the_servers_is_private(tmp_path: Path) -> None:
    folder = servers_folder(tmp_path / "jobs.db")
    assert folder.name == "jobs.db-servers"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert servers_folder(tmp_path / "jobs.db") == folder


def test_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    servers_folder(tmp_path / "jobs.db").chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"with mode 700, but it belongs to user .* with mode 755"):
        servers_folder(tmp_path / "jobs.db")
