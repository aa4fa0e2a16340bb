"""models/retention.py: see the contract of model stores; here: races with publishers and movers of aliases."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store_contract import publish
from tinysvc.models.layout import manifest_key
from tinysvc.models.opening import open_store
from tinysvc.models.store import ModelStore


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return open_store(str(tmp_path / "models"))


def test_version_that_is_named_meanwhile_is_put_back(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        publish(store, content=b"%d" % number)
    copy = store.storage.copy

    def named(key: str, new_key: str) -> None:
        monkeypatch.undo()
        store.move_alias("churn", "production", 1)
        copy(key, new_key)

    monkeypatch.setattr(store.storage, "copy", named)
    store.sweep(keep=1)
    assert store.versions("churn") == [1, 2]


def test_blob_that_is_named_meanwhile_is_put_back(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(store, content=b"in use")
    store.storage.delete(manifest_key("churn", publish(store, content=b"of a killed publisher")))
    copy = store.storage.copy

    def named(key: str, new_key: str) -> None:
        monkeypatch.undo()
        publish(store, content=b"of a killed publisher")
        copy(key, new_key)

    monkeypatch.setattr(store.storage, "copy", named)
    monkeypatch.setattr("tinysvc.models.retention.Sweep._is_old", lambda self, found: "swept" not in found.key)
    store.sweep()
    assert store.versions("churn") == [1, 2]
    assert store.verify("churn", 2) == []
    assert len(store.storage.listing("churn/blobs").keys) == 2
