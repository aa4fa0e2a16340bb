"""The aliases of a store: which version each one names, and how it is moved."""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex

from .alias_entries import AliasEntry, current_time
from .alias_log import decode_entry, encode_entry, previous_entry
from .errors import AliasMoved, UnknownVersion, VersionRefused
from .layout import alias_folder, alias_key, manifest_key, numbers_in
from .references import ALIAS, check_alias, check_name
from .storage import MissingKey, Storage
from .versions import Versions


class Aliases:
    """The aliases in a storage."""

    def __init__(self, storage: Storage, versions: Versions) -> None:
        self._storage = storage
        self._versions = versions

    def of(self, name: str) -> dict[str, AliasEntry]:
        """What each alias of an artifact names."""
        numbers = {alias: self._last_number(name, alias) for alias in self._names(name)}
        return {alias: self._entry(name, alias, number) for alias, number in numbers.items() if number}

    def _names(self, name: str) -> list[str]:
        folders = self._storage.listing(alias_folder(check_name(name))).folders
        return sorted(folder for folder in folders if ALIAS.fullmatch(folder))

    def current(self, name: str, alias: str) -> AliasEntry:
        """What an alias names now.

        Raises:
            UnknownVersion: There is no such alias.
            VersionRefused: The last entry of the alias is damaged.
        """
        number = self._last_number(name, alias)
        if not number:
            known = ", ".join(self._names(name)) or "no alias"
            raise UnknownVersion(f"{self._storage.url} has no {name}@{alias}: {name} has {known}")
        return self._entry(name, alias, number)

    def log(self, name: str, alias: str) -> list[AliasEntry]:
        """The entries of an alias, the oldest first, without damaged ones; empty if there is no such alias."""
        numbers = numbers_in(self._storage.listing(alias_folder(check_name(name), check_alias(alias))).keys)
        entries = []
        for number in numbers:
            with suppress(MissingKey, VersionRefused):  # swept meanwhile, or damaged and repaired by a later one
                entries.append(self._entry(name, alias, number))
        return entries

    def move(self, name: str, alias: str, version: int, *, expected: int | None, by: str) -> AliasEntry:
        """See `ModelStore.move_alias`."""
        self._versions.check(name, version)
        number = self._last_number(name, alias)
        if expected is None:
            with suppress(VersionRefused):  # a damaged entry is repaired by the next one
                if number and (entry := self._entry(name, alias, number)).version == version:
                    return entry
        else:
            found = self._entry(name, alias, number) if number else None
            if found is not None and found.version == version:
                return found
            if (found.version if found else 0) != expected:
                raise AliasMoved(f"{name}@{alias}", found, expected)
        return self._append(name, alias, number + 1, version, by)

    def advance(self, name: str, alias: str, version: int, by: str) -> AliasEntry:
        """Let an alias name a version that was just published, unless a later version has it already."""
        while True:
            number = self._last_number(name, alias)
            with suppress(VersionRefused):  # a damaged entry is repaired by the next one
                if number and (entry := self._entry(name, alias, number)).version >= version:
                    return entry
            with suppress(AliasMoved):
                return self._append(name, alias, number + 1, version, by)

    def rollback(self, name: str, alias: str, *, expected: int | None, by: str) -> AliasEntry:
        """See `ModelStore.rollback`."""
        current = self.current(name, alias)
        if expected is not None and current.version != expected:
            raise AliasMoved(f"{name}@{alias}", current, expected)
        log = [entry for entry in self.log(name, alias) if entry.number <= current.number]
        previous = previous_entry(log)
        if previous is None:
            raise UnknownVersion(f"{name}@{alias} has named no version before {current.version}")
        self._versions.check(name, previous.version)
        return self._append(name, alias, current.number + 1, previous.version, by, previous.number)

    def versions_in_use(self, name: str, alias: str) -> list[int]:
        """The version that an alias names, and the one that a rollback would restore.

        Raises:
            VersionRefused: The last entry of the alias is damaged.
        """
        current = self.current(name, alias)
        previous = previous_entry(self.log(name, alias))
        return [current.version, *([previous.version] if previous else [])]

    def _append(self, name: str, alias: str, number: int, version: int, by: str, restores: int = 0) -> AliasEntry:
        entry = AliasEntry(version, by, current_time(), number, restores)
        if not self._storage.create(alias_key(name, alias, number), encode_entry(entry, token_hex(8))):
            raise AliasMoved(f"{name}@{alias}", self.current(name, alias))
        self._check_still_there(name, alias, entry)
        return entry

    def _check_still_there(self, name: str, alias: str, entry: AliasEntry) -> None:
        """A sweep may have set the version aside at the same time, because no alias named it: put it back."""
        key = manifest_key(name, entry.version)
        if self._storage.find(key) is None:
            try:
                self._storage.copy(self._versions.key_set_aside(key), key)
            except MissingKey:
                raise UnknownVersion(
                    f"{name}@{entry.version} was swept while {name}@{alias} was moved to it: move the alias again"
                ) from None

    def _last_number(self, name: str, alias: str) -> int:
        numbers = numbers_in(self._storage.listing(alias_folder(check_name(name), check_alias(alias))).keys)
        return numbers[-1] if numbers else 0

    def _entry(self, name: str, alias: str, number: int) -> AliasEntry:
        return decode_entry(f"{name}@{alias}", number, self._storage.read(alias_key(name, alias, number)))
