"""The versions of a store, and the content of their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .errors import UnknownVersion, VersionRefused
from .layout import blob_key, manifest_key, numbers_in, swept_folder, unswept_key
from .manifest import Manifest, ManifestFile, decode_manifest
from .references import check_name
from .signatures import TrustedKeys
from .storage import MissingKey, Storage


class Versions:
    """The versions in a storage."""

    def __init__(self, storage: Storage, trusted: TrustedKeys) -> None:
        self._storage = storage
        self._trusted = trusted

    def numbers(self, name: str) -> list[int]:
        """The numbers of all versions, sorted; empty if there is no such artifact."""
        return numbers_in(self._storage.listing(check_name(name)).keys)

    def manifest(self, name: str, version: int) -> Manifest:
        """The manifest of a version, also if a sweep has set it aside.

        Raises:
            UnknownVersion: There is no such version.
            VersionRefused: The manifest is damaged, or no trusted key has signed it.
        """
        manifest = self.unchecked_manifest(name, version)
        self._trusted.check(manifest)
        return manifest

    def unchecked_manifest(self, name: str, version: int) -> Manifest:
        """The manifest of a version, without a check of its signature.

        Raises:
            UnknownVersion: There is no such version.
            VersionRefused: The manifest is damaged.
        """
        return decode_manifest(name, version, self._content(name, version))

    def blob(self, name: str, sha256: str) -> Iterator[memoryview | bytes]:
        """The content of a file, piece by piece, also if a sweep has set it aside. A piece is valid until the next one.

        Raises:
            MissingKey: The store does not have it.
        """
        key = blob_key(name, sha256)
        try:
            yield from self._storage.chunks(key)
        except MissingKey:  # raised before the first piece
            yield from self._storage.chunks(self.key_set_aside(key))

    def check(self, name: str, version: int) -> None:
        """Check that a version exists.

        Raises:
            UnknownVersion: It does not.
        """
        if version < 1 or self._storage.find(manifest_key(check_name(name), version)) is None:
            raise UnknownVersion(self._no_version(name, version))

    def faults(self, manifest: Manifest) -> list[str]:
        """Read all files of a version, and return a sentence for each one that is not as in the manifest."""
        faults = [(file.path, self._fault(manifest.name, file)) for file in manifest.files]
        return [f"{path}: {fault}" for path, fault in faults if fault]

    def _fault(self, name: str, file: ManifestFile) -> str:
        read, found = 0, hashlib.sha256()
        try:
            for chunk in self.blob(name, file.sha256):
                found.update(chunk)
                read += len(chunk)
        except MissingKey:
            return f"its blob {file.sha256} is missing"
        if read != file.size:
            return f"it has {read} bytes instead of {file.size}"
        same = found.hexdigest() == file.sha256
        return "" if same else f"it has the SHA-256 {found.hexdigest()} instead of {file.sha256}"

    def key_set_aside(self, key: str) -> str:
        """Where a sweep has set a key aside. It may have been put back meanwhile: then the key itself.

        Raises:
            MissingKey: The key is not there, and was not set aside.
        """
        for each in self._storage.listing(swept_folder(key)).keys:
            if unswept_key(each.key) == key:
                return each.key
        if self._storage.find(key) is None:
            raise MissingKey(key)
        return key

    def _content(self, name: str, version: int) -> bytes:
        """The content of a manifest, also if a sweep has set it aside."""
        key = manifest_key(check_name(name), version)
        try:
            try:
                return self._storage.read(key)
            except MissingKey:
                return self._storage.read(self.key_set_aside(key))
        except MissingKey:
            raise UnknownVersion(self._no_version(name, version)) from None
        except ValueError as error:
            raise VersionRefused(f"the manifest of {name}@{version} is too large") from error

    def _no_version(self, name: str, version: int) -> str:
        versions = self.numbers(name)
        known = f"it has {_shortened(versions)}" if versions else f"it has no {name}"
        return f"{self._storage.url} has no {name}@{version}: {known}"


def _shortened(versions: list[int]) -> str:
    shown = ", ".join(map(str, versions[-5:]))
    return f"..., {shown}" if len(versions) > 5 else shown
