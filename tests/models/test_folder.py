"""models/folder.py: a local folder keeps the contract of a storage, and a killed writer leaves nothing half."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store_contract import StorageContract
from tinysvc.models.errors import StoreUnavailable
from tinysvc.models.folder import FolderStorage


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
