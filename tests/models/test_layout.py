"""models/layout.py: the keys of a store."""

from __future__ import annotations

import pytest

from tinysvc.models.layout import (
    alias_folder,
    alias_key,
    blob_key,
    manifest_key,
    numbers_in,
    swept_folder,
    swept_key,
    unswept_key,
)
from tinysvc.models.storage import StoredKey


def test_keys() -> None:
    assert manifest_key("churn", 7) == "churn/7.json"
    assert blob_key("churn", "ab") == "churn/blobs/ab"
    assert alias_folder("churn") == "churn/aliases"
    assert alias_key("churn", "production", 12) == "churn/aliases/production/12.json"


@pytest.mark.parametrize("key", ["churn/7.json", "churn/blobs/ab", "churn.v2/7.json"])
def test_key_that_was_set_aside(key: str) -> None:
    aside = swept_key(key, "nonce")
    assert unswept_key(aside) == key
    assert swept_folder(key) == aside.rpartition("/")[0]


def test_other_files_are_no_numbers() -> None:
    names = ["10.json", "9.json", "07.json", "7.json.tmp", "0.json", "-1.json", "notes.json", "8"]
    assert numbers_in(StoredKey(f"churn/{name}", 1, 0.0) for name in names) == [9, 10]


def test_numbers_that_were_set_aside() -> None:
    names = ["7.json.ab12", "8.json", "blobs", "notes.json.ab"]
    assert numbers_in([StoredKey(f"churn/swept/{name}", 1, 0.0) for name in names], aside=True) == [7]
