"""models/store.py: a store in a local folder keeps the contract of a model store."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store_contract import ModelStoreContract
from tinysvc.models.folder import FolderStorage


class TestFolderStore(ModelStoreContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> FolderStorage:
        folder = tmp_path / "models"
        folder.mkdir()
        return FolderStorage(folder)
