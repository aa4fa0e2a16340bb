"""models/storage.py: the interface; its contract is in tests/support/model_store_contract.py."""

from __future__ import annotations

from pathlib import Path

from tinysvc.models.folder import FolderStorage
from tinysvc.models.storage import MAX_DOCUMENT, Storage


def test_folder_is_a_storage(tmp_path: Path) -> None:
    storage: Storage = FolderStorage(tmp_path)  # checked by mypy
    assert storage.url == str(tmp_path)


def test_document_has_room_for_many_files() -> None:
    assert MAX_DOCUMENT > 100_000 * 150
