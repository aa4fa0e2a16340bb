"""models/versions.py: see the contract of model stores; here: what the sweep has set aside is still read."""

from __future__ import annotations

from pathlib import Path

from model_store_contract import content_of, publish
from tinysvc.models.layout import blob_key, manifest_key, swept_key
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store


def test_keys_that_are_set_aside_are_still_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "models"))
    publish(store)
    for key in (manifest_key("churn", 1), blob_key("churn", store.manifest("churn", 1).files[0].sha256)):
        store.storage.copy(key, swept_key(key, "nonce"))
        store.storage.delete(key)
    assert store.versions("churn") == []
    assert content_of(LocalCopies(tmp_path / "copies").fetch(store, "churn", 1)) == b"weights"
