"""models/fetching.py: files are copied and checked in one pass."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store_contract import content_of, publish
from tinysvc.models.errors import StoreUnavailable
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store


def test_store_that_goes_away_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, copies = open_store(str(tmp_path / "models")), LocalCopies(tmp_path / "copies")
    publish(store)

    def half(key: str) -> Iterator[bytes]:
        yield b"wei"
        raise StoreUnavailable("the connection was reset")

    with monkeypatch.context() as away:
        away.setattr(store.storage, "chunks", half)
        with pytest.raises(StoreUnavailable):
            copies.fetch(store, "churn", 1)
    assert not list(copies.folder.glob("churn/*"))
    assert [path.suffix for path in (copies.folder / ".fetching").iterdir()] == [".lock"]
    assert content_of(copies.fetch(store, "churn", 1)) == b"weights"


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, copies = open_store(str(tmp_path / "models")), LocalCopies(tmp_path / "copies")
    publish(store)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("tinysvc.models.fetching.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            copies.fetch(store, "churn", 1)
    assert not list(copies.folder.glob("churn/*"))
    assert content_of(copies.fetch(store, "churn", 1)) == b"weights"
