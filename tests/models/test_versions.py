"""models/versions.py: see the contract of model stores; here: what the sweep has set aside is still read."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store_contract import content_of, publish
from tinysvc.models.errors import VersionRefused
from tinysvc.models.layout import blob_key, manifest_key, swept_key
from tinysvc.models.local_copies import LocalCopies
from tinysvc.models.opening import open_store
from tinysvc.models.storage import MAX_DOCUMENT


def test_keys_that_are_set_aside_are_still_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "models"))
    publish(store)
    for key in (manifest_key("churn", 1), blob_key("churn", store.manifest("churn", 1).files[0].sha256)):
        store.storage.copy(key, swept_key(key, "nonce"))
        store.storage.delete(key)
    assert store.versions("churn") == []
    assert content_of(LocalCopies(tmp_path / "copies").fetch(store, "churn", 1)) == b"weights"


def test_manifest_that_is_too_large_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "models"))
    publish(store)
    with open(tmp_path / "models" / "churn" / "1.json", "r+b") as file:
        file.truncate(MAX_DOCUMENT + 1)
    with pytest.raises(VersionRefused, match="too large"):
        store.manifest("churn", 1)
