"""The commands that change nothing: list, show and verify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..core.printing import local_time
from .alias_entries import AliasEntry
from .command_texts import (
    MAX_AUTHOR,
    alias_document,
    counted,
    facts,
    json_line,
    meta_text,
    names_of,
    shortened,
    size_text,
    table,
    value_text,
    version_document,
)
from .errors import UnknownVersion, VersionRefused
from .manifest import Manifest
from .references import parse_reference
from .store import ModelStore

Lines = Iterator[str]


class Damaged(Exception):
    """Versions have faults; the report is printed already."""


def list_artifacts(store: ModelStore, *, as_json: bool) -> Lines:
    """All artifacts, with the number of their versions, the newest one, and the aliases."""
    rows = []
    for name in store.names():
        versions, aliases = store.versions(name), store.aliases(name)
        if as_json:
            named = {alias: entry.version for alias, entry in aliases.items()}
            yield json_line({"name": name, "versions": versions, "aliases": named})
        elif versions:  # else all of them were swept since
            rows.append((name, str(len(versions)), str(versions[-1]), " ".join(names_of(aliases))))
    if rows:
        yield from table(("NAME", "VERSIONS", "NEWEST", "ALIASES"), rows)
    elif not as_json:
        yield f"{store.url} has no artifacts yet"


def list_versions(store: ModelStore, name: str, *, as_json: bool) -> Lines:
    """The versions of an artifact, the newest first."""
    _newest(store, name)  # it must exist
    versions, aliases = store.versions(name), store.aliases(name)
    rows: list[tuple[str, ...]] = []
    for version in reversed(versions):
        try:
            manifest = store.manifest(name, version)
        except VersionRefused as error:
            if as_json:
                yield json_line({"name": name, "version": version, "refused": str(error)})
            rows.append((str(version), ", ".join(names_of(aliases, version)), "", "", "", f"refused: {error}"))
        except UnknownVersion:
            continue  # swept since
        else:
            if as_json:
                yield json_line(version_document(manifest, names_of(aliases, version)))
            rows.append(_row(manifest, aliases))
    if not as_json:
        yield from table(("VERSION", "ALIASES", "SIZE", "PUBLISHED", "BY", "META"), rows)


def _row(manifest: Manifest, aliases: dict[str, AliasEntry]) -> tuple[str, ...]:
    return (
        str(manifest.version),
        ", ".join(names_of(aliases, manifest.version)),
        size_text(manifest.size),
        local_time(manifest.at),
        shortened(manifest.by, MAX_AUTHOR),
        meta_text(manifest.meta),
    )


def show(store: ModelStore, reference: str, *, as_json: bool) -> Lines:
    """A version and its files; for an alias also its moves."""
    name, _, rest = reference.partition("@")
    version = store.resolve(reference) if rest else _newest(store, name)
    manifest, aliases = store.manifest(name, version), store.aliases(name)
    log = store.alias_log(name, rest) if rest and not rest.isdigit() else []
    if as_json:
        document: dict[str, Any] = version_document(manifest, names_of(aliases, version))
        if log:
            document["moves"] = [alias_document(name, rest, entry) for entry in log]
        yield json_line(document)
        return
    yield from facts(
        {
            "version": manifest.label,
            "aliases": ", ".join(names_of(aliases, version)),
            "published": f"{local_time(manifest.at)} by {manifest.by}",
            "size": f"{size_text(manifest.size)} in {counted(len(manifest.files), 'file')}",
            "digest": manifest.digest,
            "signed with": manifest.signature.key if manifest.signature else "",
            **{f"meta {key}": value_text(value) for key, value in manifest.meta.items()},
        }
    )
    yield ""
    yield from table(
        ("SIZE", "SHA-256", "FILE"), [(size_text(file.size), file.sha256[:16], file.path) for file in manifest.files]
    )
    if log:
        rows = [(str(each.version), local_time(each.at), each.by, _kind(each)) for each in reversed(log)]
        yield ""
        yield from table((f"@{rest}", "SINCE", "BY", ""), rows)


def _kind(entry: AliasEntry) -> str:
    return "rollback" if entry.restores else ""


def _newest(store: ModelStore, name: str) -> int:
    versions = store.versions(name)
    if not versions:
        raise UnknownVersion(f"{store.url} has no {name}; it has: {', '.join(store.names()) or 'no artifacts'}")
    return versions[-1]


def verify(store: ModelStore, references: list[str], *, as_json: bool) -> Lines:
    """Read versions, and compare them with their hashes. `Damaged` at the end, if there is a fault."""
    checked = damaged = 0
    for name, version in _asked(store, references):
        try:
            faults = store.verify(name, version)
        except UnknownVersion:
            if any("@" in each for each in references):
                raise
            continue  # swept since
        checked += 1
        damaged += bool(faults)
        if as_json:
            yield json_line({"name": name, "version": version, "faults": faults})
        else:
            yield from table(*_verdict(f"{name}@{version}", faults))
    if not as_json:
        yield f"{counted(checked, 'version')} read, {damaged} damaged" if checked else f"{store.url} has no versions"
    if damaged:
        raise Damaged


def _verdict(label: str, faults: list[str]) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    first, *rest = faults or ["whole"]
    return (label, first), [("", fault) for fault in rest]


def _asked(store: ModelStore, references: list[str]) -> Iterator[tuple[str, int]]:
    for reference in references or store.names():
        name, _, rest = reference.partition("@")
        if rest:
            yield parse_reference(reference).name, store.resolve(reference)
        else:
            _newest(store, name)  # it must exist
            for version in store.versions(name):
                yield name, version
