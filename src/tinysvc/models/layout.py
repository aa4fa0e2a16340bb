"""The keys of a store.

    churn/7.json                        the manifest of version 7
    churn/blobs/SHA256                  content of files
    churn/aliases/production/12.json    the twelfth entry of an alias
    churn/swept/7.json.NONCE            a manifest that a sweep has set aside for a day: see retention.py
    churn/swept/blobs/SHA256.NONCE      a blob that a sweep has set aside
    .probe/NONCE                        of `ModelStore.probe`

Everything below an artifact is created once and never changed.
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


def swept_key(key: str, nonce: str) -> str:
    """Where one sweep sets a key of an artifact aside. Two sweeps at once have different nonces."""
    name, _, rest = key.partition("/")
    return f"{name}/swept/{rest}.{nonce}"


def unswept_key(key: str) -> str:
    """The key that a sweep has set aside under `key`."""
    name, _, rest = key.rpartition(".")[0].partition("/swept/")
    return f"{name}/{rest}"


def swept_folder(key: str) -> str:
    """The folder of a key that was set aside."""
    return swept_key(key, "").rpartition("/")[0]


def numbers_in(keys: Iterable[StoredKey], *, aside: bool = False) -> list[int]:
    """The numbers of the keys `.../NUMBER.json`, or of those that were set aside, sorted. Other keys are skipped."""
    paths = [unswept_key(each.key) if aside else each.key for each in keys]
    names = [path.rpartition("/")[2] for path in paths]
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(int(stem) for stem in stems if VERSION.fullmatch(stem))
