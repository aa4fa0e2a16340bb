"""store_check.py: a service does not start with a store that overwrites; one that is away is a warning."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from http_ends import on_loop
from tinysvc import ConfigurationError, Models, Service, io_route
from tinysvc.core.settings import Settings
from tinysvc.models.errors import StoreRefused, StoreUnavailable
from tinysvc.models.folder import FolderStorage
from tinysvc.runtime.store_check import check_store
from tinysvc.testing import serving


@io_route("/")
async def handler(models: Models) -> None: ...


def test_service_does_not_start_with_a_store_that_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def overwriting(storage: FolderStorage, key: str, content: bytes) -> bool:
        (storage.folder / key).parent.mkdir(exist_ok=True)
        (storage.folder / key).write_bytes(content)
        return True

    def away(storage: FolderStorage, key: str, content: bytes) -> bool:
        raise StoreUnavailable("the disk is away")

    monkeypatch.setattr(FolderStorage, "create", overwriting)
    with pytest.raises(StoreRefused, match="ignores create-if-absent"), serving(Service(handler), models=str(tmp_path)):
        pass
    monkeypatch.setattr(FolderStorage, "create", away)
    with caplog.at_level(logging.WARNING), serving(Service(handler), models=str(tmp_path)):
        pass
    assert "the store of models was not checked at the start: the disk is away" in caplog.text


@on_loop
async def test_folder_is_checked_if_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created = []
    create = FolderStorage.create

    def noted(storage: FolderStorage, key: str, content: bytes) -> bool:
        created.append(key)
        return create(storage, key, content)

    monkeypatch.setattr(FolderStorage, "create", noted)
    folder = tmp_path / "models"
    await check_store(Settings(models=str(folder)))
    assert not folder.exists()
    folder.mkdir()
    await check_store(Settings(models=str(folder)))
    assert len(created) == 2


@on_loop
async def test_store_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not ftp://"):
        await check_store(Settings(models="ftp://host"))
    with pytest.raises(ConfigurationError, match="the signing key cannot be read: /nowhere"):
        await check_store(Settings(models_signing_key="/nowhere"))
