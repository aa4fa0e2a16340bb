"""Tracking stores as MLflow 3.17 writes them: the folder `mlruns`, and a database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

RUN, MODEL = "80d7e8b72dec4696be034233f9185f8c", "m-554a659d5d924d6bb5cfa4e4a618ea4f"

ML_MODEL = """\
artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.sklearn
  sklearn:
    code: null
mlflow_version: 3.17.2
"""


def write_files(root: Path) -> None:
    """The files of a logged model, of artifacts of the run, and its metrics."""
    model, run = root / "0" / "models" / MODEL / "artifacts", root / "0" / RUN
    for path, content in {
        model / "MLmodel": ML_MODEL,
        model / "weights.txt": "logged",
        run / "artifacts" / "plain" / "weights.txt": "plain",
        run / "metrics" / "auc": "1795982320364 0.5 0\n1795982320365 0.91 1\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def mlruns(root: Path, *, of: str = "/home/ada/mlruns") -> Path:
    """The folder. `of` is where it was when MLflow wrote it: its files have absolute paths."""
    write_files(root)
    versions = {
        ("churn", 1): (f"models:/{MODEL}", f"file://{of}/0/models/{MODEL}/artifacts"),
        ("plain", 1): (f"runs:/{RUN}/plain", f"runs:/{RUN}/plain"),
        ("plain", 2): (f"file://{root}/0/{RUN}/artifacts/plain",) * 2,
        ("remote", 1): ("s3://bucket/0/model",) * 2,
        ("lost", 1): ("file:///nowhere/model",) * 2,
    }
    for (name, number), (source, location) in versions.items():
        _meta(
            root / "models" / name / f"version-{number}",
            name=name,
            run_id=RUN,
            source=source,
            storage_location=location,
            user_id="null",
            version=str(number),
        )
    (root / "models" / "plain" / "aliases").mkdir()
    (root / "models" / "plain" / "aliases" / "champion").write_text("2")
    _meta(root / "0" / RUN, artifact_uri=f"file://{of}/0/{RUN}/artifacts", run_id=RUN, tags="[]")
    _meta(
        root / "0" / "models" / MODEL,
        artifact_location=f"file://{of}/0/models/{MODEL}/artifacts",
        model_id=MODEL,
        name="model",
        source_run_id=RUN,
    )
    return root


def _meta(folder: Path, **facts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}: {value}" for name, value in facts.items()]
    (folder / "meta.yaml").write_text("\n".join([*lines, "entry_point_name: ''", "experiment_id: '0'", ""]))


def mlflow_database(file: Path) -> Path:
    """The database, and its files beside it."""
    root = file.parent / "files"
    write_files(root)
    place = f"{root}/0/models/{MODEL}/artifacts"
    with closing(sqlite3.connect(file)) as database, database:
        for table, columns, rows in (
            (
                "model_versions",
                "name, version INTEGER, source, run_id, storage_location",
                [
                    ("churn", 1, f"models:/{MODEL}", RUN, place),
                    ("plain", 1, f"runs:/{RUN}/plain", RUN, f"runs:/{RUN}/plain"),
                ],
            ),
            ("registered_model_aliases", "alias, version INTEGER, name", [("champion", 1, "plain")]),
            ("runs", "run_uuid, artifact_uri", [(RUN, f"{root}/0/{RUN}/artifacts")]),
            ("logged_models", "model_id, name, artifact_location, source_run_id", [(MODEL, "model", place, RUN)]),
            ("latest_metrics", "key, value DOUBLE, run_uuid, is_nan", [("auc", 0.91, RUN, 0), ("bad", 0.0, RUN, 1)]),
        ):
            database.execute(f"CREATE TABLE {table} ({columns})")
            for row in rows:
                database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    return file
