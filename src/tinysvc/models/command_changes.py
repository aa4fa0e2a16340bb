"""The commands that change the store: publish, import, alias, rollback and gc."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigurationError
from ..core.printing import printable
from .command_texts import (
    alias_document,
    alias_sentence,
    counted,
    json_line,
    names_of,
    size_text,
    swept_lines,
    version_document,
)
from .hub_import import import_hub
from .imported_files import copy_files
from .mlflow_import import import_mlflow
from .pickles import find_pickles
from .publication import Publication
from .references import VERSION
from .store import ModelStore

Lines = Iterator[str]
Options = Mapping[str, Any]

IMPORTERS = ("mlflow", "hf")


def publish(store: ModelStore, options: Options) -> Lines:
    """A file or a folder as a new version."""

    def fill(new: Publication) -> None:
        copy_files(Path(options["path"]), new.path)

    return _published(store, options, fill)


def import_model(store: ModelStore, options: Options) -> Lines:
    """A model from elsewhere as a new version, with its origin in the meta data."""
    kind, _, address = options["source"].partition(":")
    if kind not in IMPORTERS or not address:
        example = "mlflow:models:/churn@champion or hf:org/model"
        raise ConfigurationError(f"a source begins with mlflow: or hf:, as in {example}, not {options['source']!r}")

    def fill(new: Publication) -> None:
        if kind == "mlflow":
            found = import_mlflow(
                address, new.path, only=options["only"], tracking=options["tracking"], environ=os.environ
            )
        else:
            found = import_hub(address, new.path, only=options["only"], environ=os.environ)
        new.meta = found | new.meta

    return _published(store, options, fill)


def _published(store: ModelStore, options: Options, fill: Callable[[Publication], None]) -> Lines:
    meta = dict(options["meta"])
    with store.publish(options["name"], alias=options["alias"] or "", meta=meta, by=options["by"]) as new:
        fill(new)
        files = [path for path in new.path.rglob("*") if path.is_file()]
        pickles = find_pickles(new.path, sorted(path.relative_to(new.path).as_posix() for path in files))
    manifest, entry = new.manifest, new.alias_entry
    assert manifest is not None
    if options["json"]:
        document = version_document(manifest, names_of(store.aliases(manifest.name), manifest.version))
        yield json_line({**document, "pickles": pickles})
        return
    yield f"published {manifest.label}: {size_text(manifest.size)} in {counted(len(manifest.files), 'file')}"
    if entry is not None:
        yield alias_sentence(manifest.name, options["alias"], entry)
    if pickles:
        yield printable(
            f"it has pickles ({', '.join(pickles)}), which run code when they are loaded: a service takes it only by "
            "Artifact(..., allow_pickle=True)"
        )


def alias(store: ModelStore, options: Options) -> Lines:
    """Let an alias name a version, or the version of another alias."""
    name, text = options["name"], options["version"]
    version = int(text) if VERSION.fullmatch(text) else store.resolve(f"{name}@{text}")
    entry = store.move_alias(name, options["alias"], version, expected=options["expected"], by=options["by"])
    yield _moved(entry, options)


def rollback(store: ModelStore, options: Options) -> Lines:
    """Let an alias name the version that it named before."""
    name, by = options["name"], options["by"]
    yield _moved(store.rollback(name, options["alias"], expected=options["expected"], by=by), options)


def _moved(entry: Any, options: Options) -> str:
    name, alias = options["name"], options["alias"]
    if options["json"]:
        return json_line(alias_document(name, alias, entry))
    return alias_sentence(name, alias, entry)


def gc(store: ModelStore, options: Options) -> Lines:
    """Remove what is old."""
    swept = store.sweep(keep=options["keep"], older_than=options["older_than"], dry_run=options["dry_run"])
    yield from swept_lines(swept, as_json=options["json"], dry_run=options["dry_run"])
