"""The interface of a place that keeps content under keys: a local folder, or a bucket of an object store.

Everything above it needs one promise only: of two creations of one key, at most one succeeds, and a key is visible with
its whole content or not at all. There are no locks, and nothing is ever overwritten.

A key is a path with `/`, as in `churn/aliases/production/12.json`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..core.units import MiB

MAX_DOCUMENT = 16 * MiB
"""Bytes of a manifest or of an entry of an alias: `read` refuses more. A manifest has about 120 bytes for each file."""


class MissingKey(LookupError):
    """There is nothing under this key."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key, the bytes of its content, and when it was created or moved, in seconds of the storage's clock."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Listing:
    """The keys of one folder, in any order, and the names of its subfolders."""

    keys: tuple[StoredKey, ...]
    folders: tuple[str, ...]


class Storage(Protocol):
    """All methods block, and may be called by several threads at once.

    Each method may raise `StoreUnavailable`; those that write may raise `StoreReadOnly`, too.
    """

    @property
    def url(self) -> str:
        """The storage as people write it, without secrets."""
        ...

    def create(self, key: str, content: bytes) -> bool:
        """Create a key durably. False: it existed, and was not changed."""
        ...

    def upload(self, key: str, file: Path) -> bool:
        """Create a key durably with the content of a file, which may become read-only. False: the key existed."""
        ...

    def read(self, key: str) -> bytes:
        """The content of a document of at most `MAX_DOCUMENT` bytes.

        Raises:
            MissingKey: There is no such key.
            ValueError: The content is larger.
        """
        ...

    def chunks(self, key: str) -> Iterator[memoryview | bytes]:
        """The content, piece by piece. A piece is valid until the next one is taken.

        Raises:
            MissingKey: There is no such key. It may be raised with the first piece.
        """
        ...

    def find(self, key: str) -> StoredKey | None:
        """The size and the time of a key; None if there is no such key."""
        ...

    def listing(self, folder: str) -> Listing:
        """The keys directly in a folder, as in "churn/aliases" or "" for the topmost one. It need not exist."""
        ...

    def copy(self, key: str, new_key: str) -> None:
        """Make the content available under `new_key`, too, with the time of now. An existing `new_key` may be kept.

        Raises:
            MissingKey: There is no such key.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove a key, if it exists."""
        ...

    def staging(self) -> AbstractContextManager[Path]:
        """An empty folder for the files of a publication. It is removed at the end."""
        ...

    def sweep_staging(self, older_than: float, dry_run: bool) -> list[str]:
        """Remove what killed publishers have left for so many seconds; return the paths."""
        ...
