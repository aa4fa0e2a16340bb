"""MLflow's tracking stores on this machine, read without its library: the folder `mlruns`, and SQLite.

    mlruns/models/churn/version-7/meta.yaml    a version: its source and its run
    mlruns/models/churn/aliases/champion       the number of a version
    mlruns/0/RUN/meta.yaml                     a run, with artifacts/ and metrics/ beside it
    mlruns/0/models/m-ID/meta.yaml             a logged model (MLflow 3), with artifacts/ beside it

A database has the same facts in tables. Folders are read where they are now: their files have absolute paths, which are
wrong after a copy to another machine.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

from .errors import UnknownVersion

Facts = Mapping[str, str]
"""Names and values, as texts; values that are null are absent."""


class TrackingStore(Protocol):
    """What an import asks a tracking store. Each method raises `UnknownVersion` if there is no such thing."""

    def version(self, name: str, number: str) -> Facts:
        """A version of a registered model: `source`, `storage_location`, `run_id`."""
        ...

    def alias(self, name: str, alias: str) -> str:
        """The number of the version that an alias names."""
        ...

    def run(self, run_id: str) -> Facts:
        """A run: `artifact_uri`."""
        ...

    def logged_model(self, model_id: str) -> Facts:
        """A logged model: `artifact_location`, `source_run_id`."""
        ...

    def logged_model_of(self, run_id: str, name: str) -> Facts:
        """The logged model of a run."""
        ...

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        ...


class FolderTracking:
    """The folder `mlruns`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def version(self, name: str, number: str) -> Facts:
        return self._facts(self._folder / "models" / name / f"version-{number}", f"version {number} of {name}")

    def alias(self, name: str, alias: str) -> str:
        file = self._folder / "models" / name / "aliases" / alias
        if not file.is_file():
            raise UnknownVersion(f"{self} has no alias {alias} of {name}")
        return file.read_text().strip()

    def run(self, run_id: str) -> Facts:
        folder = self._find(f"*/{run_id}", f"run {run_id}")
        return {**self._facts(folder, f"run {run_id}"), "artifact_uri": str(folder / "artifacts")}

    def logged_model(self, model_id: str) -> Facts:
        folder = self._find(f"*/models/{model_id}", f"logged model {model_id}")
        return {**self._facts(folder, model_id), "artifact_location": str(folder / "artifacts")}

    def logged_model_of(self, run_id: str, name: str) -> Facts:
        for file in self._folder.glob("*/models/m-*/meta.yaml"):
            facts = _flat_yaml(file.read_text())
            if (facts.get("source_run_id"), facts.get("name")) == (run_id, name):
                return {**facts, "artifact_location": str(file.parent / "artifacts")}
        raise UnknownVersion(f"{self} has no model {name} of the run {run_id}")

    def metrics(self, run_id: str) -> dict[str, float]:
        folder = self._find(f"*/{run_id}", f"run {run_id}") / "metrics"
        files = [file for file in folder.rglob("*") if file.is_file()]
        lines = {file.relative_to(folder).as_posix(): file.read_text().split("\n") for file in files}
        return {
            name: float(found[-1].split(" ")[1]) for name, each in lines.items() if (found := [*filter(None, each)])
        }

    def _find(self, pattern: str, subject: str) -> Path:
        for folder in self._folder.glob(pattern):
            return folder
        raise UnknownVersion(f"{self} has no {subject}")

    def _facts(self, folder: Path, subject: str) -> Facts:
        file = folder / "meta.yaml"
        if not file.is_file():
            raise UnknownVersion(f"{self} has no {subject}: there is no {file}")
        return _flat_yaml(file.read_text())


class DatabaseTracking:
    """An SQLite database, which is only read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __str__(self) -> str:
        return str(self._file)

    def version(self, name: str, number: str) -> Facts:
        statement = "SELECT * FROM model_versions WHERE name = ? AND version = ?"
        return self._row(statement, (name, number), f"version {number} of {name}")

    def alias(self, name: str, alias: str) -> str:
        statement = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
        return self._row(statement, (name, alias), f"alias {alias} of {name}")["version"]

    def run(self, run_id: str) -> Facts:
        return self._row("SELECT * FROM runs WHERE run_uuid = ?", (run_id,), f"run {run_id}")

    def logged_model(self, model_id: str) -> Facts:
        return self._row("SELECT * FROM logged_models WHERE model_id = ?", (model_id,), f"logged model {model_id}")

    def logged_model_of(self, run_id: str, name: str) -> Facts:
        statement = "SELECT * FROM logged_models WHERE source_run_id = ? AND name = ?"
        return self._row(statement, (run_id, name), f"model {name} of the run {run_id}")

    def metrics(self, run_id: str) -> dict[str, float]:
        rows = self._rows("SELECT key, value FROM latest_metrics WHERE run_uuid = ? AND NOT is_nan", (run_id,))
        return {row["key"]: float(row["value"]) for row in rows}

    def _row(self, statement: str, values: tuple[str, ...], subject: str) -> Facts:
        for row in self._rows(statement, values):
            return row
        raise UnknownVersion(f"{self} has no {subject}")

    def _rows(self, statement: str, values: tuple[str, ...]) -> list[Facts]:
        try:
            with closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True)) as database:
                cursor = database.execute(statement, values)
                names = [each[0] for each in cursor.description]
                rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise UnknownVersion(f"{self} cannot be read as a database of MLflow: {error}") from None
        return [{name: str(value) for name, value in zip(names, row, strict=True) if value is not None} for row in rows]


def _flat_yaml(text: str) -> Facts:
    """The scalars of a mapping, as MLflow writes them: one `name: value` a line."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon and not name.startswith((" ", "-", "#")) and value not in ("null", "''"):
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1].replace("''", "'") if is_quoted else value
    return found
