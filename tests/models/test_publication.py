"""models/publication.py: what can be published, and what a reader sees meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinysvc.models.errors import PublicationRefused
from tinysvc.models.opening import open_store
from tinysvc.models.publication import hashed_file
from tinysvc.models.store import ModelStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return open_store(str(tmp_path / "models"))


def test_link_is_refused(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(PublicationRefused, match=r"link\.bin is no regular file"), store.publish("churn") as new:
        (new.path / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(PublicationRefused, match="no regular file"), store.publish("churn") as new:
        (new.path / "folder").symlink_to(tmp_path)
    with pytest.raises(PublicationRefused, match="no regular file"), store.publish("churn") as new:
        os.mkfifo(new.path / "pipe")
    store.probe()
    assert store.versions("churn") == []


def test_file_with_a_second_name_is_copied(store: ModelStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"first")
    with store.publish("churn") as new:
        os.link(outside, new.path / "weights.bin")
    outside.write_bytes(b"changed after the publication")
    assert store.verify("churn", 1) == []


def test_file_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"first")
    real = os.fstat

    def growing(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        with open(path, "ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr("tinysvc.models.publication.os.fstat", growing)
    with pytest.raises(PublicationRefused, match="was changed while it was published"):
        hashed_file(tmp_path, path)


def test_blobs_are_read_only(store: ModelStore) -> None:
    with store.publish("churn") as new:
        (new.path / "weights.bin").write_bytes(b"weights")
    blobs = list(Path(store.url).glob("churn/blobs/*"))
    assert [blob.stat().st_mode & 0o222 for blob in blobs] == [0]
