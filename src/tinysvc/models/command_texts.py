"""Versions and aliases as the command line prints them: documents for programs, tables for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..core.printing import columns, local_time, printable
from ..core.units import KiB, MiB
from .alias_entries import AliasEntry
from .manifest import Manifest
from .retention import Swept

MAX_META = 60
"""Characters of the meta data in a table of versions."""
MAX_AUTHOR = 32
"""Characters of an author in a table of versions."""


def json_line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False)


def version_document(manifest: Manifest, aliases: Iterable[str]) -> dict[str, Any]:
    """A version: what its manifest says, its size in bytes, its digest and its aliases."""
    return {
        "name": manifest.name,
        "version": manifest.version,
        "aliases": sorted(aliases),
        "by": manifest.by,
        "at": manifest.time,
        "size": manifest.size,
        "digest": manifest.digest,
        "signed_with": manifest.signature.key if manifest.signature else None,
        "meta": dict(manifest.meta),
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in manifest.files],
    }


def alias_document(name: str, alias: str, entry: AliasEntry) -> dict[str, Any]:
    return {
        "name": name,
        "alias": alias,
        "version": entry.version,
        "by": entry.by,
        "at": entry.time,
        "number": entry.number,
        "restores": entry.restores,
    }


def alias_sentence(name: str, alias: str, entry: AliasEntry) -> str:
    by = f" by {printable(entry.by)}" if entry.by else ""
    return f"{name}@{alias} names version {entry.version} since {local_time(entry.at)}{by}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return columns([heads, *([printable(cell) for cell in row] for row in rows)]).splitlines()


def names_of(aliases: Mapping[str, AliasEntry], version: int | None = None) -> list[str]:
    """The aliases of a version; of all versions, with their numbers."""
    if version is None:
        return [f"{alias}={entry.version}" for alias, entry in sorted(aliases.items())]
    return sorted(alias for alias, entry in aliases.items() if entry.version == version)


def size_text(size: int) -> str:
    """Bytes for people, as in 1.4 MiB."""
    for unit, name in ((1024 * MiB, "GiB"), (MiB, "MiB"), (KiB, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"


def meta_text(meta: Mapping[str, Any]) -> str:
    """The meta data on one line, cut off where it is long."""
    return shortened(" ".join(f"{key}={value_text(value)}" for key, value in meta.items()), MAX_META)


def shortened(text: str, limit: int) -> str:
    """The text, cut off after `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def swept_lines(swept: Swept, *, as_json: bool, dry_run: bool) -> Iterator[str]:
    """What a sweep has done; for a dry run, what it would do."""
    if as_json:
        yield json_line({"dry_run": dry_run, **dataclasses.asdict(swept)})
        return
    versions = counted(len(swept.versions), "version")
    shown = f" ({', '.join(swept.versions)})" if swept.versions else ""
    yield f"{'would set' if dry_run else 'set'} aside {versions}{shown} and {size_text(swept.set_aside)} of files"
    removed = [
        f"{size_text(swept.removed)} of what was set aside before",
        counted(swept.entries, "old entry of an alias", "old entries of aliases"),
        counted(len(swept.leftovers), "folder of a killed publisher", "folders of killed publishers"),
    ]
    yield f"{'would remove' if dry_run else 'removed'} {removed[0]}, {removed[1]}, {removed[2]}"
    yield from (f"skipped: {printable(sentence)}" for sentence in swept.skipped)


def value_text(value: Any) -> str:
    """A value of the meta data: a text as it is, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def counted(count: int, noun: str, plural: str = "") -> str:
    """As in "1 file" and "2 files"."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def facts(values: Mapping[str, str]) -> list[str]:
    """Names and values, one a line; empty values are left out."""
    return columns([(name, printable(value)) for name, value in values.items() if value]).splitlines()
