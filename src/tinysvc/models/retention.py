"""The sweep: which versions and blobs are no longer needed, and how they are removed without a lock.

*What stays.* The newest versions, each version that an alias names, the one that it named before, and every blob that a
manifest names.

*Two steps.* Publishers and movers of aliases work at the same time: a version that nothing names may be named a moment
later. So a sweep sets a key aside first: it copies the key into `swept/`, removes it, and then reads the aliases and
manifests again. If the key is named now, it is put back. A key that was aside for a day is removed for good.

    publisher    finds its blob,      creates the manifest,    looks for its blob again, and uploads it if it is missing
    mover        finds its version,   creates the entry,       looks for its version again, and puts it back
    sweep        sees no name,        sets the key aside,      looks for names again, and puts the key back

Whichever of them is later sees what the other has done. Meanwhile, and after the death of a sweep, readers find the key
in `swept/`. The copies of two sweeps at once have different nonces, so neither removes what the other has set aside.

This assumes that no publication and no sweep pauses for longer than `older_than` between two of its steps.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex

from .aliases import Aliases
from .errors import UnknownVersion, VersionRefused
from .layout import alias_folder, alias_key, blob_key, manifest_key, numbers_in, swept_key, unswept_key
from .manifest import decode_manifest
from .references import ALIAS, NAME
from .storage import MissingKey, Storage, StoredKey
from .versions import Versions

KEPT_ENTRIES = 100
"""Entries of each alias that stay: its history, and what rollbacks may restore."""


@dataclass(slots=True)
class Swept:
    """What a sweep has done, or would do.

    Attributes:
        versions: Labels of the versions that were set aside, as in "churn@3".
        set_aside: Bytes of the blobs that were set aside. A later sweep removes them.
        removed: Bytes that were removed.
        entries: Old entries of aliases that were removed.
        leftovers: Folders of publications that were killed, as paths.
        skipped: A sentence for each artifact that was left alone because something in it is damaged.
    """

    versions: list[str] = field(default_factory=list)
    set_aside: int = 0
    removed: int = 0
    entries: int = 0
    leftovers: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


class Sweep:
    """One sweep of a store.

    Args:
        storage: The storage.
        versions: Its versions.
        aliases: Its aliases.
        keep: So many of the newest versions stay, at least one.
        older_than: Seconds for which a blob without a version stays, and for which things stay aside.
        dry_run: Change nothing.
    """

    def __init__(
        self, storage: Storage, versions: Versions, aliases: Aliases, keep: int, older_than: float, dry_run: bool
    ) -> None:
        self._storage = storage
        self._versions = versions
        self._aliases = aliases
        self._keep = max(keep, 1)  # the number of a version is never given to another one
        self._older_than = older_than
        self._dry_run = dry_run
        self._nonce = token_hex(4)
        self._now = 0.0
        self._swept = Swept()

    def run(self) -> Swept:
        """Sweep all artifacts.

        Raises:
            StoreUnavailable: The store does not answer, or it does not exist.
        """
        names = sorted(self._storage.listing("").folders)  # first: the probe of the clock would create the store
        self._now = self._time()
        for name in names:
            if NAME.fullmatch(name):
                try:
                    self._sweep_versions(name)
                    self._sweep_blobs(name)
                    self._sweep_entries(name)
                except VersionRefused as error:  # what is in use is not known
                    self._swept.skipped.append(f"{name} was not swept: {error}")
        for probe in self._storage.listing(".probe").keys:  # of killed processes
            if self._is_old(probe):
                self._delete(probe.key)
        self._swept.leftovers = self._storage.sweep_staging(self._older_than, self._dry_run)
        return self._swept

    def _time(self) -> float:
        """The time by the clock of the storage, which has set the times of the keys."""
        if self._dry_run:
            return time.time()
        key = f".probe/{token_hex(8)}"
        self._storage.create(key, b"")
        found = self._storage.find(key)
        self._storage.delete(key)
        return found.modified if found else time.time()

    def _sweep_versions(self, name: str) -> None:
        numbers, used = self._versions.numbers(name), self._used_versions(name)
        for number in numbers[: -self._keep]:
            if number not in used:
                self._swept.versions.append(f"{name}@{number}")
                self._set_aside(manifest_key(name, number))
        used = self._used_versions(name)
        self._settle(f"{name}/swept", {manifest_key(name, number) for number in used})

    def _sweep_blobs(self, name: str) -> None:
        blobs = self._storage.listing(f"{name}/blobs").keys
        used = self._used_blobs(name)
        for blob in sorted(blobs, key=lambda blob: blob.key):
            if blob.key not in used and self._is_old(blob):
                self._swept.set_aside += blob.size
                self._set_aside(blob.key)
        self._settle(f"{name}/swept/blobs", self._used_blobs(name))

    def _sweep_entries(self, name: str) -> None:
        for alias in self._storage.listing(alias_folder(name)).folders:
            if ALIAS.fullmatch(alias):
                for number in numbers_in(self._storage.listing(alias_folder(name, alias)).keys)[:-KEPT_ENTRIES]:
                    self._swept.entries += 1
                    self._delete(alias_key(name, alias, number))

    def _used_versions(self, name: str) -> set[int]:
        """The versions that an alias names, or a rollback would restore."""
        return {version for alias in self._aliases.of(name) for version in self._aliases.versions_in_use(name, alias)}

    def _used_blobs(self, name: str) -> set[str]:
        """The blobs that a manifest names, also one that was set aside. What was copied there is seen in one place."""
        manifests = []
        for number in self._versions.numbers(name):
            with suppress(UnknownVersion):  # removed meanwhile
                manifests.append(self._versions.unchecked_manifest(name, number))
        for each in self._storage.listing(f"{name}/swept").keys:
            for number in numbers_in([each], aside=True):
                with suppress(MissingKey):
                    manifests.append(decode_manifest(name, number, self._storage.read(each.key)))
        return {blob_key(name, file.sha256) for manifest in manifests for file in manifest.files}

    def _set_aside(self, key: str) -> None:
        if not self._dry_run:
            with suppress(MissingKey):  # another sweep was faster
                self._storage.copy(key, swept_key(key, self._nonce))
                self._storage.delete(key)

    def _settle(self, folder: str, used: set[str]) -> None:
        """Put back what is in use, and remove what was aside for long enough."""
        for each in sorted(self._storage.listing(folder).keys, key=lambda each: each.key):
            key = unswept_key(each.key)
            if key in used and not self._dry_run and self._storage.find(key) is None:
                with suppress(MissingKey):
                    self._storage.copy(each.key, key)
            if self._is_old(each):
                self._swept.removed += each.size
                self._delete(each.key)

    def _is_old(self, found: StoredKey) -> bool:
        return self._older_than <= 0 or found.modified <= self._now - self._older_than

    def _delete(self, key: str) -> None:
        if not self._dry_run:
            self._storage.delete(key)
