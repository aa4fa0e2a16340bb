"""models/aliases.py: see the contract of model stores; here: races with the sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store_contract import publish
from tinysvc.models.errors import UnknownVersion
from tinysvc.models.layout import manifest_key, swept_key
from tinysvc.models.opening import open_store


def test_version_that_is_set_aside_meanwhile_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "models"))
    publish(store)
    key, create = manifest_key("churn", 1), store.storage.create

    def swept(entry: str, content: bytes) -> bool:
        monkeypatch.undo()
        store.storage.copy(key, swept_key(key, "nonce"))
        store.storage.delete(key)
        return create(entry, content)

    monkeypatch.setattr(store.storage, "create", swept)
    store.move_alias("churn", "production", 1)
    assert store.versions("churn") == [1]


def test_version_that_is_removed_meanwhile_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "models"))
    publish(store)
    create = store.storage.create

    def removed(entry: str, content: bytes) -> bool:
        monkeypatch.undo()
        store.storage.delete(manifest_key("churn", 1))
        return create(entry, content)

    monkeypatch.setattr(store.storage, "create", removed)
    with pytest.raises(UnknownVersion, match="churn@1 was swept while churn@production was moved to it"):
        store.move_alias("churn", "production", 1)
