"""models/mlflow_import.py: an address of MLflow becomes files and meta data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mlflow_folders import MODEL, RUN, mlflow_database, mlruns
from tinysvc.core.errors import ConfigurationError
from tinysvc.models.errors import PublicationRefused, UnknownVersion
from tinysvc.models.mlflow_import import import_mlflow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


@pytest.fixture
def tracking(tmp_path: Path) -> str:
    return str(mlruns(tmp_path / "mlruns"))


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def imported(address: str, folder: Path, tracking: str, **options: Any) -> dict[str, Any]:
    return import_mlflow(address, folder, tracking=tracking, environ={}, **options)


@pytest.mark.parametrize("address", ["models:/churn/1", "churn/1", f"models:/{MODEL}", f"runs:/{RUN}/model"])
def test_logged_model_is_found_by_each_of_its_addresses(address: str, folder: Path, tracking: str) -> None:
    meta = imported(address, folder, tracking)
    assert sorted(contents(folder)) == ["MLmodel", "weights.txt"]
    assert contents(folder)["weights.txt"] == "logged"
    assert meta["source"]["kind"] == "mlflow"
    assert meta["source"]["run_id"] == RUN
    assert meta["source"]["flavors"] == ["python_function", "sklearn"]
    assert meta["metrics"] == {"auc": 0.91}


@pytest.mark.parametrize("address", ["models:/plain@champion", "plain@champion", "plain/1", f"runs:/{RUN}/plain"])
def test_artifacts_of_a_run_are_found(address: str, folder: Path, tracking: str) -> None:
    meta = imported(address, folder, tracking)
    assert contents(folder) == {"weights.txt": "plain"}
    assert meta["source"]["address"].endswith(address)
    assert "flavors" not in meta["source"]


def test_database_is_read_without_the_library(folder: Path, tmp_path: Path) -> None:
    database = mlflow_database(tmp_path / "mlflow.db")
    assert imported("churn/1", folder, f"sqlite:///{database}")["metrics"] == {"auc": 0.91}
    assert contents(folder)["weights.txt"] == "logged"


def test_files_of_a_logged_model_may_be_chosen(folder: Path, tracking: str) -> None:
    imported(f"runs:/{RUN}/model", folder, tracking, only=["*.txt"])
    assert contents(folder) == {"weights.txt": "logged"}
    with pytest.raises(PublicationRefused, match="has no file that fits"):
        imported("churn/1", folder, tracking, only=["*.onnx"])


def test_folder_is_an_address(folder: Path, tracking: str) -> None:
    place = f"{tracking}/0/models/{MODEL}/artifacts"
    for address in (place, f"file://{place}"):
        assert imported(address, folder, tracking)["source"]["flavors"] == ["python_function", "sklearn"]


def test_tracking_store_is_found_as_mlflow_finds_it(
    folder: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert import_mlflow("churn/1", folder, environ={})["metrics"] == {"auc": 0.91}
    with pytest.raises(UnknownVersion, match="there is no tracking store of MLflow at /nowhere/mlruns"):
        import_mlflow("churn/1", folder, environ={"MLFLOW_TRACKING_URI": "file:///nowhere/mlruns"})
    mlflow_database(tmp_path / "mlflow.db")
    with pytest.raises(UnknownVersion, match=r"mlflow\.db has no version 1 of remote"):
        import_mlflow("remote/1", folder, environ={})


def test_lost_files_are_named(folder: Path, tracking: str) -> None:
    with pytest.raises(UnknownVersion, match="the files of lost/1 are not on this machine: /nowhere/model"):
        imported("lost/1", folder, tracking)


@pytest.mark.parametrize("tracking_uri", ["http://127.0.0.1:5000", ""])
def test_files_elsewhere_need_the_library(
    tracking_uri: str, folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigurationError, match=r"not on this machine, .*pip install mlflow-skinny"):
        imported("remote/1", folder, tracking_uri or tracking)


def test_library_downloads_what_is_elsewhere(folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    tracked = [""]

    def download_artifacts(artifact_uri: str, dst_path: str) -> str:
        asked.append((artifact_uri, *tracked))
        if "lost" in artifact_uri:
            raise OSError("503")
        Path(dst_path, "model").mkdir()
        Path(dst_path, "model", "weights.txt").write_text("downloaded")
        return os.path.join(dst_path, "model")

    library, artifacts = ModuleType("mlflow"), ModuleType("mlflow.artifacts")
    artifacts.download_artifacts = download_artifacts  # type: ignore[attr-defined]
    library.set_tracking_uri = lambda uri: tracked.__setitem__(0, uri)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", library)
    monkeypatch.setitem(sys.modules, "mlflow.artifacts", artifacts)
    assert imported("remote/1", folder, tracking)["source"]["version"] == "1"
    assert contents(folder) == {"weights.txt": "downloaded"}
    imported("churn@champion", folder, "http://127.0.0.1:5000")
    assert asked == [
        ("s3://bucket/0/model", tracking),
        ("models:/churn@champion", "http://127.0.0.1:5000"),
    ]
    with pytest.raises(UnknownVersion, match="MLflow cannot download models:/lost/1 from http://x: 503"):
        imported("lost/1", folder, "http://x")


def test_sources_that_name_each_other_end(folder: Path, tracking: str) -> None:
    meta = Path(tracking) / "models" / "plain" / "version-1" / "meta.yaml"
    meta.write_text("source: models:/plain/1\n")
    with pytest.raises(UnknownVersion, match="the sources of models:/plain/1 name each other"):
        imported("plain/1", folder, tracking)
