"""A store of versions: what is published once is never changed, and aliases say which version is in use.

The layout is in layout.py, the interface of the place that has the content in storage.py.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from secrets import token_hex
from typing import Any

from .alias_entries import AliasEntry
from .aliases import Aliases
from .errors import ModelsError, StoreReadOnly, StoreRefused, VersionRefused
from .manifest import Manifest
from .publication import Publication
from .references import NAME, Reference, check_alias, check_name, parse_reference
from .retention import Sweep, Swept
from .signatures import SigningKey, TrustedKeys
from .storage import Storage
from .versions import Versions


class ModelStore:
    """A store. All methods block; several threads and processes may call them at once.

    Args:
        storage: Where the content is.
        trusted: Public keys, one of which must have signed a version that is read.
        signing_key: Signs the versions that are published.
    """

    def __init__(
        self, storage: Storage, trusted: TrustedKeys | None = None, signing_key: SigningKey | None = None
    ) -> None:
        self.storage = storage
        self.trusted = trusted or TrustedKeys()
        self._signing_key = signing_key
        self._versions = Versions(storage, self.trusted)
        self._aliases = Aliases(storage, self._versions)

    @property
    def url(self) -> str:
        """The folder or the address, as people write it, without secrets."""
        return self.storage.url

    def __repr__(self) -> str:
        return f"<ModelStore {self.url}>"

    def probe(self) -> bool:
        """Check that the store honours create-if-absent, by two creations of one key.

        Returns:
            False if this process may only read the store.

        Raises:
            StoreRefused: The second creation has succeeded, or has changed the content.
            StoreUnavailable: The store does not answer.
        """
        key = f".probe/{token_hex(8)}"
        try:
            created = self.storage.create(key, b"first")
        except StoreReadOnly:
            return False
        try:
            again = self.storage.create(key, b"second")
            content = self.storage.read(key)
        finally:
            with suppress(ModelsError):  # some may create, but not delete
                self.storage.delete(key)
        if not created or again or content != b"first":
            raise StoreRefused(
                f"{self.url} ignores create-if-absent (If-None-Match: *): it has created one key twice, so two "
                "publishers would overwrite each other's versions; use a store that honours it"
            )
        return True

    def names(self) -> list[str]:
        """The names of all artifacts with a version, sorted."""
        folders = [name for name in self.storage.listing("").folders if NAME.fullmatch(name)]
        return sorted(name for name in folders if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """The numbers of all versions, sorted; empty if there is no such artifact."""
        return self._versions.numbers(name)

    def manifest(self, name: str, version: int) -> Manifest:
        """The manifest of a version.

        Raises:
            UnknownVersion: There is no such version.
            VersionRefused: The manifest is damaged, or no trusted key has signed it.
        """
        return self._versions.manifest(name, version)

    def blob(self, name: str, sha256: str) -> Iterator[memoryview | bytes]:
        """The content of a file, piece by piece. A piece is valid until the next one.

        Raises:
            MissingKey: The store does not have it.
        """
        return self._versions.blob(name, sha256)

    def publish(
        self, name: str, *, alias: str = "", meta: Mapping[str, Any] | None = None, by: str = ""
    ) -> Publication:
        """Publish a version: `with store.publish("churn") as new: save(new.path / "weights.npz")`.

        Args:
            name: Name of the artifact; a new one is created.
            alias: Let this alias name the new version.
            meta: What is worth to know about the version: a JSON object.
            by: The person or process that publishes; default: user and host.

        Raises:
            BadReference: `name` or `alias` is not possible.
            PublicationRefused: `meta` is no JSON object; at the end of the block: the files cannot be published.
            StoreReadOnly: This process may not write to the store.
        """
        if alias:
            check_alias(alias)
        return Publication(
            self.storage,
            self._versions,
            self._aliases,
            self._sign,
            check_name(name),
            alias,
            meta or {},
            by or user_and_host(),
        )

    def aliases(self, name: str) -> dict[str, AliasEntry]:
        """What each alias of an artifact names."""
        return self._aliases.of(name)

    def alias(self, name: str, alias: str) -> AliasEntry:
        """What an alias names now.

        Raises:
            UnknownVersion: There is no such alias.
            VersionRefused: The last entry of the alias is damaged.
        """
        return self._aliases.current(name, alias)

    def alias_log(self, name: str, alias: str) -> list[AliasEntry]:
        """The entries of an alias, the oldest first, without damaged ones; empty if there is no such alias."""
        return self._aliases.log(name, alias)

    def move_alias(
        self, name: str, alias: str, version: int, *, expected: int | None = None, by: str = ""
    ) -> AliasEntry:
        """Let an alias name a version. If it names this version already, nothing is changed.

        Args:
            name: Name of the artifact.
            alias: The alias; a new one is created.
            version: Number of the version.
            expected: The version that the alias must name now; 0: the alias must not exist yet.
            by: The person or process that moves it; default: user and host.

        Raises:
            AliasMoved: The alias names another version than `expected`, or it was moved by another process right now.
            UnknownVersion: There is no such version.
        """
        return self._aliases.move(name, alias, version, expected=expected, by=by or user_and_host())

    def rollback(self, name: str, alias: str, *, expected: int | None = None, by: str = "") -> AliasEntry:
        """Let an alias name the version that it named before. A second rollback goes one step further back.

        Args:
            name: Name of the artifact.
            alias: The alias.
            expected: The version that the alias must name now.
            by: The person or process that moves it; default: user and host.

        Raises:
            AliasMoved: The alias names another version than `expected`, or it was moved by another process right now.
            UnknownVersion: There is no such alias, it has named no other version, or that version was swept.
        """
        return self._aliases.rollback(name, alias, expected=expected, by=by or user_and_host())

    def resolve(self, reference: Reference | str) -> int:
        """The number of the version that a reference names now. A version itself is not looked for.

        Raises:
            BadReference: The text is no reference.
            UnknownVersion: There is no such alias.
            VersionRefused: The last entry of the alias is damaged.
        """
        found = parse_reference(reference) if isinstance(reference, str) else reference
        return found.version or self.alias(found.name, found.alias).version

    def verify(self, name: str, version: int) -> list[str]:
        """Read a whole version and compare it with its manifest.

        Returns:
            A sentence for each fault; empty if there is none.

        Raises:
            UnknownVersion: There is no such version.
        """
        try:
            manifest = self.manifest(name, version)
        except VersionRefused as error:
            return [str(error)]
        return self._versions.faults(manifest)

    def sweep(self, *, keep: int = 10, older_than: float = 86400.0, dry_run: bool = False) -> Swept:
        """Remove what is no longer needed. A sweep sets versions and blobs aside, a later one removes them.

        The newest versions stay, each version that an alias names, the one that it named before, and their blobs.

        Args:
            keep: So many of the newest versions of each artifact stay; at least one.
            older_than: Seconds for which things stay aside, and blobs without a version stay. 0 removes them at once,
                and is safe only while nothing publishes, moves an alias or fetches.
            dry_run: Change nothing; report what would be done.

        Raises:
            StoreReadOnly: This process may not write to the store.
        """
        return Sweep(self.storage, self._versions, self._aliases, keep, older_than, dry_run).run()

    def _sign(self, manifest: Manifest) -> Manifest:
        return self._signing_key.sign(manifest) if self._signing_key else manifest


def user_and_host() -> str:
    """The user and the host of this process, as in `ada@build-7`."""
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
