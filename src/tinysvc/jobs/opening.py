"""From the setting `jobs` to a store."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..core.errors import ConfigurationError
from ..core.optional_libraries import missing_library
from .keeper.shared_store import SharedStore
from .sqlite.store import SqliteStore
from .store import Store


def store_of(text: str) -> Store:
    """The store that the setting names, not yet open: the path of a file, or the address of a PostgreSQL database."""
    if text.startswith(("postgresql://", "postgres://")):
        if missing := missing_library("asyncpg"):
            raise ConfigurationError(missing)
        from .postgres.store import PostgresStore  # the library is an extra

        return PostgresStore(text)
    if "://" in text:
        raise ConfigurationError(f"jobs takes the path of a file or an address postgresql://..., not {text!r}")
    return SharedStore(Path(text), SqliteStore)


def new_owner() -> str:
    """A name for this server process, which no other process ever has."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"
