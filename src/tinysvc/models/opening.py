"""From the setting `models` to a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .folder import FolderStorage
from .object_urls import is_object_url, object_storage
from .signatures import TrustedKeys, load_signing_key, load_trusted_keys
from .storage import Storage
from .store import ModelStore


def open_store(url: str, *, keys: Sequence[str] = (), signing_key: str = "") -> ModelStore:
    """The store in a folder or at an address. Nothing is created or asked yet.

    Args:
        url: Path of a folder, or s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.
        keys: Files with trusted public keys; without one, signatures are not checked.
        signing_key: File with the private key that signs what is published.

    Raises:
        ConfigurationError: The address is not possible, a key cannot be read, or a library is missing.
    """
    trusted = load_trusted_keys(Path(file) for file in keys) if keys else TrustedKeys()
    return ModelStore(storage_of(url), trusted, load_signing_key(Path(signing_key)) if signing_key else None)


def storage_of(url: str) -> Storage:
    """The storage behind an address."""
    if is_object_url(url):
        return object_storage(url)
    return FolderStorage(Path(url).expanduser())
