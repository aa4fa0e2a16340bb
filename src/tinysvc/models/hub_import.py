"""`hf:ORGANIZATION/MODEL@REVISION` as the source of a version: a snapshot of a repository of the Hugging Face hub.

The library huggingface_hub downloads it. Without the library, or without a network, its cache on this machine is read:

    models--org--model/refs/main               the commit of a branch or tag
    models--org--model/snapshots/COMMIT/...    links to the files
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..core.errors import ConfigurationError
from .errors import UnknownVersion
from .imported_files import copy_files

_ADDRESS = re.compile(r"(?P<repository>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def import_hub(address: str, folder: Path, *, only: Sequence[str] = (), environ: Mapping[str, str]) -> dict[str, Any]:
    """Copy the files of a snapshot into a folder, and return their origin, as meta data of a version.

    Args:
        address: As in "org/model" or "org/model@v1.0"; a revision is a branch, a tag or a commit.
        folder: Gets the files.
        only: Patterns of the paths that are copied; all without one.
        environ: The variables of the process.

    Raises:
        UnknownVersion: There is no such snapshot.
        ConfigurationError: The address has another form.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or ".." in address:
        raise ConfigurationError(f"hf: takes ORGANIZATION/MODEL or ORGANIZATION/MODEL@REVISION, not {address!r}")
    repository, revision = found["repository"], found["revision"] or "main"
    snapshot = _downloaded(repository, revision, only) or _cached(repository, revision, cache_folder(environ))
    copy_files(snapshot, folder, only)
    return {"source": {"kind": "hf", "address": repository, "revision": revision, "commit": snapshot.name}}


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The cache of huggingface_hub, by its own variables."""
    if named := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(named).expanduser()
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environ.get("HF_HOME") or f"{caches}/huggingface").expanduser() / "hub"


def _downloaded(repository: str, revision: str, only: Sequence[str]) -> Path | None:
    """The snapshot, complete for these patterns; None without the library."""
    try:
        hub: Any = import_module("huggingface_hub")
    except ImportError:
        return None
    try:
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(only) or None))
    except Exception as error:
        raise UnknownVersion(f"{repository}@{revision} cannot be downloaded from the hub: {error}") from error


def _cached(repository: str, revision: str, cache: Path) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        raise UnknownVersion(
            f"the cache {cache} has no {repository}@{revision}; pip install huggingface_hub to download it, or set "
            "HF_HUB_CACHE to the cache that has it"
        )
    return snapshot
