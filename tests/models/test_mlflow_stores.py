"""models/mlflow_stores.py: the folder and the database of MLflow give the same facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_folders import MODEL, RUN, mlflow_database, mlruns
from tinysvc.models.errors import UnknownVersion
from tinysvc.models.mlflow_stores import DatabaseTracking, FolderTracking, TrackingStore


@pytest.fixture(params=["folder", "database"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TrackingStore:
    if request.param == "folder":
        return FolderTracking(mlruns(tmp_path / "mlruns"))
    return DatabaseTracking(mlflow_database(tmp_path / "mlflow.db"))


def test_facts_of_versions_runs_and_logged_models(store: TrackingStore) -> None:
    version = store.version("churn", "1")
    assert (version["source"], version["run_id"], version["version"]) == (f"models:/{MODEL}", RUN, "1")
    assert "user_id" not in version
    assert store.alias("plain", "champion") in ("1", "2")
    assert Path(store.run(RUN)["artifact_uri"], "plain", "weights.txt").read_text() == "plain"
    for model in (store.logged_model(MODEL), store.logged_model_of(RUN, "model")):
        assert Path(model["artifact_location"], "weights.txt").read_text() == "logged"
        assert model["source_run_id"] == RUN
    assert store.metrics(RUN) == {"auc": 0.91}


def test_missing_facts_are_named(store: TrackingStore) -> None:
    for ask, subject in (
        (lambda: store.version("churn", "9"), "no version 9 of churn"),
        (lambda: store.alias("churn", "champion"), "no alias champion of churn"),
        (lambda: store.run("other"), "no run other"),
        (lambda: store.logged_model("m-1"), "no logged model m-1"),
        (lambda: store.logged_model_of(RUN, "other"), f"no model other of the run {RUN}"),
    ):
        with pytest.raises(UnknownVersion, match=f"{store} has {subject}"):
            ask()


def test_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("nothing")
    with pytest.raises(UnknownVersion, match=r"mlflow\.db cannot be read as a database of MLflow: file is not a data"):
        DatabaseTracking(tmp_path / "mlflow.db").version("churn", "1")
