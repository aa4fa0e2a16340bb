"""`mlflow:ADDRESS` as the source of a version: the files of a model that MLflow has.

    models:/churn/7, models:/churn@champion    a version of the model registry; `models:/` may be left out
    models:/m-ID                               a logged model (MLflow 3)
    runs:/RUN/path                             artifacts of a run
    ./folder, file:///folder                   a folder

Stores on this machine are read without MLflow (mlflow_stores.py); servers, and files elsewhere, with its library.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from ..core.errors import ConfigurationError
from .errors import UnknownVersion
from .imported_files import copy_files
from .mlflow_stores import DatabaseTracking, Facts, FolderTracking, TrackingStore

_VERSION = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:/(?P<number>\d+)|@(?P<alias>[^/@]+))")
_LOGGED = re.compile(r"models:/(?P<id>m-[0-9a-z]+)/?")
_RUN = re.compile(r"runs:/(?P<id>[^/]+)/(?P<path>.+)")

MAX_STEPS = 5
"""A version may name a run or a logged model as its source. A longer chain is a cycle."""


def import_mlflow(
    address: str, folder: Path, *, only: Sequence[str] = (), tracking: str = "", environ: Mapping[str, str]
) -> dict[str, Any]:
    """Copy the files of a model into a folder, and return what is known about them, as meta data of a version.

    Args:
        address: See above.
        folder: Gets the files.
        only: Patterns of the paths that are copied; all without one.
        tracking: The tracking store; default: MLFLOW_TRACKING_URI, ./mlflow.db or ./mlruns.
        environ: The variables of the process.

    Raises:
        UnknownVersion: There is no such model.
        ConfigurationError: The address has another form, or the library is needed, and missing.
    """
    uri = (
        tracking or environ.get("MLFLOW_TRACKING_URI", "") or ("mlflow.db" if Path("mlflow.db").is_file() else "mlruns")
    )
    store = _local_store(uri)
    if store is None:
        with TemporaryDirectory() as downloaded:
            copy_files(_download(_full(address), Path(downloaded), uri), folder, only)
        return {"source": {"kind": "mlflow", "address": _full(address), **_described(folder)}}
    found = _Found()
    place = _resolve(address, store, found)
    path = _local_path(place)
    if path is None:
        with TemporaryDirectory() as downloaded:
            copy_files(_download(place, Path(downloaded), uri), folder, only)
    elif not path.exists():
        raise UnknownVersion(f"the files of {address} are not on this machine: {path} does not exist")
    else:
        copy_files(path, folder, only)
    meta: dict[str, Any] = {
        "source": {"kind": "mlflow", "address": _full(address), **found.facts, **_described(folder)}
    }
    if run_id := found.facts.get("run_id"):
        try:
            meta["metrics"] = store.metrics(run_id)
        except UnknownVersion:
            pass  # the run was deleted; its model is still there
    return meta


class _Found:
    """What the steps to the files have shown."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}


def _resolve(address: str, store: TrackingStore, found: _Found) -> str:
    """The path or URI of the files."""
    for _ in range(MAX_STEPS):
        if logged := _LOGGED.fullmatch(address):
            model = store.logged_model(logged["id"])
            _note(found, model, "source_run_id")
            address = model["artifact_location"]
        elif version := _VERSION.fullmatch(address):
            number = version["number"] or store.alias(version["name"], version["alias"])
            facts = store.version(version["name"], number)
            found.facts["version"] = number
            _note(found, facts, "run_id")
            address = _source_of(facts)
        elif run := _RUN.fullmatch(address):
            found.facts.setdefault("run_id", run["id"])
            address = _of_run(store, run["id"], run["path"])
        else:
            return address
    raise UnknownVersion(f"the sources of {address} name each other")


def _source_of(facts: Facts) -> str:
    """A logged model is looked up by its id: the absolute path beside it may be that of another machine."""
    source = facts.get("source", "")
    return source if source.startswith(("models:/", "runs:/")) else facts.get("storage_location") or source


def _of_run(store: TrackingStore, run_id: str, path: str) -> str:
    place = f"{store.run(run_id)['artifact_uri'].rstrip('/')}/{path}"
    local = _local_path(place)
    if local is not None and not local.exists():
        name, _, rest = path.partition("/")
        try:  # MLflow 3 keeps models beside the runs
            model = store.logged_model_of(run_id, name)["artifact_location"]
        except UnknownVersion:
            return place
        return f"{model}/{rest}".rstrip("/")
    return place


def _note(found: _Found, facts: Facts, name: str) -> None:
    if value := facts.get(name):
        found.facts.setdefault("run_id", value)


def _local_store(uri: str) -> TrackingStore | None:
    """A tracking store on this machine; None for a server."""
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        return _existing(DatabaseTracking(file), file)
    if "://" in uri and not uri.startswith("file:"):
        return None
    path = _local_path(uri)
    assert path is not None
    return _existing(DatabaseTracking(path) if path.is_file() else FolderTracking(path), path)


def _existing(store: TrackingStore, path: Path) -> TrackingStore:
    if not path.exists():
        raise UnknownVersion(
            f"there is no tracking store of MLflow at {path.absolute()}; name one with --tracking or "
            "MLFLOW_TRACKING_URI, as in --tracking ./mlruns, sqlite:///mlflow.db or http://127.0.0.1:5000"
        )
    return store


def _local_path(place: str) -> Path | None:
    """The path of a place on this machine; None for one elsewhere."""
    if place.startswith("file:"):
        return Path(unquote(urlsplit(place).path))
    return None if re.match(r"[A-Za-z][\w+.-]+:/", place) else Path(place).expanduser()


def _full(address: str) -> str:
    return f"models:/{address}" if _VERSION.fullmatch(address) and not address.startswith("models:/") else address


def _download(address: str, folder: Path, tracking: str) -> Path:
    """The files of an address that MLflow's library can read."""
    try:
        library: Any = import_module("mlflow")
        artifacts: Any = import_module("mlflow.artifacts")
    except ImportError as error:
        raise ConfigurationError(
            f"the files of {address} are not on this machine, and the library of MLflow that could download them is "
            f"missing ({error}); pip install mlflow-skinny for {sys.executable}"
        ) from None
    try:
        library.set_tracking_uri(tracking)  # the registry of models is found by this alone
        return Path(artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder)))
    except Exception as error:
        raise UnknownVersion(f"MLflow cannot download {address} from {tracking}: {error}") from error


def _described(folder: Path) -> dict[str, Any]:
    """What the file `MLmodel` says: the flavors of the model."""
    file = folder / "MLmodel"
    if not file.is_file():
        return {}
    flavors, within = [], False
    for line in file.read_text(errors="replace").splitlines():
        if not line.startswith(" "):
            within = line.rstrip() == "flavors:"
        elif within and re.fullmatch(r"  [\w.-]+:.*", line):
            flavors.append(line.strip().partition(":")[0])
    return {"flavors": flavors} if flavors else {}
