"""models/folder.py: a local folder keeps the contract of a storage, and a killed writer leaves nothing half."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store_contract import StorageContract, publish
from tinysvc.models.errors import StoreReadOnly, StoreRefused, StoreUnavailable
from tinysvc.models.folder import FolderStorage
from tinysvc.models.store import ModelStore


class TestFolderStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> FolderStorage:
        folder = tmp_path / "models"
        folder.mkdir()
        return FolderStorage(folder)


def test_missing_folder_is_not_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        FolderStorage(tmp_path / "models").listing("")


def test_first_key_creates_the_folder(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "some" / "models")
    assert storage.create("churn/1.json", b"content")
    assert (tmp_path / "some" / "models" / "churn" / "1.json").read_bytes() == b"content"


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_store_that_may_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(FolderStorage(tmp_path))
    publish(store)
    for name in ("mkdir", "link", "unlink"):
        monkeypatch.setattr(os, name, failing(errno.EROFS))
    assert not store.probe()
    with pytest.raises(StoreReadOnly, match="cannot be written to: Read-only file system"):
        store.move_alias("churn", "production", 1)
    with pytest.raises(StoreReadOnly):
        store.sweep()
    with pytest.raises(StoreReadOnly), store.publish("churn"):
        pass
    assert store.verify("churn", 1) == []


def test_folder_of_the_system_cannot_be_written_to() -> None:
    assert not ModelStore(FolderStorage(Path("/sys"))).probe()


def test_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    with pytest.raises(StoreRefused, match="has no hard links"):
        ModelStore(FolderStorage(tmp_path)).probe()


def test_link_that_a_network_file_system_repeats_is_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first answer was lost; the second says that the file exists."""
    real = os.link

    def twice(source: Path, target: Path) -> None:
        real(source, target)
        real(source, target)

    monkeypatch.setattr(os, "link", twice)
    storage = FolderStorage(tmp_path)
    assert storage.create("churn/1.json", b"content")
    assert not storage.create("churn/1.json", b"content")


def test_full_disk_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(FolderStorage(tmp_path))
    publish(store)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", failing(errno.ENOSPC))
        with pytest.raises(StoreUnavailable, match="No space left"):
            publish(store, content=b"new")
    assert store.versions("churn") == [1]
    assert not list((tmp_path / ".publishing").iterdir())
    assert publish(store, content=b"new") == 2


def test_sweep_removes_what_killed_publishers_have_left(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    left = tmp_path / ".publishing" / "killed"
    (left / "sub").mkdir(parents=True)
    (left / "sub" / "half").write_bytes(b"half")
    (tmp_path / ".publishing" / "half.tmp").touch()
    with storage.staging() as filled:
        assert storage.sweep_staging(86400.0, dry_run=False) == []
        assert len(storage.sweep_staging(0, dry_run=True)) == 2
        assert left.exists()
        assert len(storage.sweep_staging(0, dry_run=False)) == 2
        assert list((tmp_path / ".publishing").iterdir()) == [filled]


def test_file_on_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.models.folder._on_one_file_system", lambda file, folder: False)
    store = ModelStore(FolderStorage(tmp_path))
    publish(store)
    assert store.verify("churn", 1) == []


def test_leftovers_go_by_age_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = FolderStorage(tmp_path)

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("tinysvc.models.folder.fcntl.flock", fail)
    with storage.staging() as filled:
        assert storage.sweep_staging(3600.0, dry_run=True) == []
        assert storage.sweep_staging(0, dry_run=True) == [str(filled)]


def test_named_pipe_or_device_is_not_read(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for key in ("pipe", "device"):
        with pytest.raises(StoreUnavailable, match="it is no regular file"):
            storage.read(key)
        with pytest.raises(StoreUnavailable, match="it is no regular file"):
            next(storage.chunks(key))
