"""Copying the files of a version, with a check of sizes and hashes in the same pass."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .durable_files import sync
from .errors import VersionRefused
from .manifest import Manifest, ManifestFile
from .storage import MissingKey
from .store import ModelStore


def fetch_files(store: ModelStore, manifest: Manifest, folder: Path) -> None:
    """Copy all files of a version into a folder, durably.

    Raises:
        VersionRefused: A file is missing, or its content is not that of the manifest.
        StoreUnavailable: The store does not answer.
        OSError: A file cannot be written.
    """
    folders = {folder}
    for file in manifest.files:
        path = folder / file.path
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        _fetch_file(store, manifest, file, path)
    for each in folders:
        sync(each)


def _fetch_file(store: ModelStore, manifest: Manifest, file: ManifestFile, path: Path) -> None:
    written, sha256 = 0, hashlib.sha256()
    with open(path, "xb") as target:
        try:
            for chunk in store.blob(manifest.name, file.sha256):
                written += len(chunk)
                if written > file.size:
                    break
                target.write(chunk)
                sha256.update(chunk)
        except MissingKey:
            raise VersionRefused(f"{manifest.label} is incomplete: the blob of {file.path} is missing") from None
        if written != file.size:
            size = f"more than {file.size}" if written > file.size else f"{written} instead of {file.size}"
            raise VersionRefused(f"{manifest.label} is damaged: {file.path} has {size} bytes")
        if sha256.hexdigest() != file.sha256:
            raise VersionRefused(f"{manifest.label} is damaged: the SHA-256 of {file.path} is {sha256.hexdigest()}")
        target.flush()
        os.fchmod(target.fileno(), 0o444)
        os.fsync(target.fileno())
