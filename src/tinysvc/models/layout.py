"""The keys of a store.

churn/7.json                        the manifest of version 7
churn/blobs/SHA256                  content of files
churn/aliases/production/12.json    the twelfth entry of an alias
churn/swept/7.json, swept/blobs/SHA256    what the sweep has set aside, for a day: see retention.py
.probe/NONCE                        of `ModelStore.probe`
"""

from __future__ import annotations

from collections.abc import Iterable

from .references import VERSION
from .storage import StoredKey


def manifest_key(name: str, version: int) -> str:
    """The manifest of a version."""
    return f"{name}/{version}.json"


def blob_key(name: str, sha256: str) -> str:
    """The content of a file."""
    return f"{name}/blobs/{sha256}"


def alias_folder(name: str, alias: str = "") -> str:
    """The log of an alias, or the folder of all aliases."""
    return f"{name}/aliases/{alias}".rstrip("/")


def alias_key(name: str, alias: str, number: int) -> str:
    """An entry of an alias."""
    return f"{alias_folder(name, alias)}/{number}.json"


def swept_key(key: str) -> str:
    """Where the sweep puts a key of an artifact aside."""
    name, _, rest = key.partition("/")
    return f"{name}/swept/{rest}"


def numbers_in(keys: Iterable[StoredKey]) -> list[int]:
    """The numbers of the keys `.../NUMBER.json`, sorted. Other keys are skipped: people leave files in folders."""
    stems = [key.key.rpartition("/")[2].removesuffix(".json") for key in keys if key.key.endswith(".json")]
    return sorted(int(stem) for stem in stems if VERSION.fullmatch(stem))
