"""models/command_changes.py: publish, import, alias, rollback and gc."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from mlflow_folders import RUN, mlruns
from models_console import ModelsConsole, console

__all__ = ["console"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "weights.txt").write_text("weights")
    (tmp_path / "out" / "sub" / "more.txt").write_text("more")
    return tmp_path / "out"


def test_folder_is_published(console: ModelsConsole, out: Path) -> None:
    options = ["--alias", "staging", "--meta", "auc=0.91", "--meta", "note=good", "--by", "ada"]
    published, named = console.run("publish", "churn", str(out), *options).splitlines()
    assert published == "published churn@1: 11 B in 2 files"
    assert named.startswith("churn@staging names version 1 since ")
    assert named.endswith(" by ada")
    manifest = console.store.manifest("churn", 1)
    assert (manifest.meta, manifest.by) == ({"auc": 0.91, "note": "good"}, "ada")
    assert [file.path for file in manifest.files] == ["sub/more.txt", "weights.txt"]
    [document] = console.documents("publish", "churn", str(out / "weights.txt"), "--alias", "staging")
    assert (document["version"], document["aliases"], document["size"]) == (2, ["staging"], 7)
    assert sorted(path.name for path in out.rglob("*.txt")) == ["more.txt", "weights.txt"]


def test_pickles_are_pointed_out(console: ModelsConsole, out: Path) -> None:
    (out / "weights.bin").write_bytes(pickle.dumps([1]))
    assert console.run("publish", "churn", str(out)).splitlines()[-1] == (
        "it has pickles (weights.bin), which run code when they are loaded: a service takes it only by "
        "Artifact(..., allow_pickle=True)"
    )
    assert console.documents("publish", "churn", str(out))[0]["pickles"] == ["weights.bin"]


def test_alias_moves_on_a_condition(console: ModelsConsole) -> None:
    for content in ("a", "b"):
        console.publish(content=content)
    assert console.run("alias", "churn", "production", "1", "--if", "0", "--by", "ada").endswith("by ada")
    assert "names version 1, not version 7: it was moved by ada at" in console.run(
        "alias", "churn", "production", "2", "--if", "7"
    )
    assert console.status == 1
    [document] = console.documents("alias", "churn", "production", "2", "--if", "1", "--by", "ada")
    assert (document["version"], document["number"], document["by"]) == (2, 2, "ada")
    assert "has no churn@9: it has 1, 2" in console.run("alias", "churn", "production", "9")
    assert console.status == 1


def test_alias_takes_the_version_of_another_one(console: ModelsConsole) -> None:
    console.publish(alias="staging")
    assert "churn@production names version 1" in console.run("alias", "churn", "production", "staging")
    assert "has no churn@nothing: churn has production, staging" in console.run(
        "alias", "churn", "production", "nothing"
    )


def test_rollback_is_one_command(console: ModelsConsole) -> None:
    for content in ("a", "b"):
        console.publish(content=content, alias="production")
    assert "names version 2, not version 1" in console.run("rollback", "churn", "production", "--if", "1")
    assert console.status == 1
    assert "names version 1" in console.run("rollback", "churn", "production", "--if", "2")
    assert console.store.resolve("churn@production") == 1
    assert "has named no version before 1" in console.run("rollback", "churn", "production")
    assert console.status == 1


def test_old_versions_are_removed_in_two_steps(console: ModelsConsole) -> None:
    for content in ("a", "b", "c"):
        console.publish(content=content)
    would = console.run("gc", "--keep", "1", "--dry-run").splitlines()
    assert would[0].startswith("would set aside 2 versions (churn@1, churn@2)")
    assert console.store.versions("churn") == [1, 2, 3]
    assert console.run("gc", "--keep", "1").startswith("set aside 2 versions (churn@1, churn@2)")
    assert console.store.versions("churn") == [3]
    [document] = console.documents("gc", "--keep", "1", "--older-than", "0")
    assert document["removed"] > 0
    assert document["dry_run"] is False


def test_store_that_does_not_exist_is_not_created_by_a_sweep(console: ModelsConsole) -> None:
    for dry_run in ([], ["--dry-run"]):
        assert "does not exist; name the store with --models" in console.run("gc", *dry_run)
        assert console.status == 3
    assert not console.folder.exists()


def test_model_of_mlflow_is_imported_with_its_origin(console: ModelsConsole, tmp_path: Path) -> None:
    tracking = str(mlruns(tmp_path / "mlruns"))
    done = console.run("import", "mlflow:models:/churn/1", "churn", "--tracking", tracking, "--alias", "staging")
    assert done.startswith("published churn@1: ")
    meta = console.store.manifest("churn", 1).meta
    assert (meta["metrics"], meta["source"]["run_id"]) == ({"auc": 0.91}, RUN)
    given = ["--meta", "metrics=none", "--only", "*.txt"]
    console.run("import", "mlflow:plain@champion", "plain", "--tracking", tracking, *given)
    assert console.store.manifest("plain", 1).meta["metrics"] == "none"
    assert "has no version 9 of churn" in console.run("import", "mlflow:churn/9", "churn", "--tracking", tracking)
    assert (console.status, console.store.versions("churn")) == (1, [1])


def test_model_of_the_hub_is_imported_from_its_cache(
    console: ModelsConsole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "model.onnx").write_text("model")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert console.run("import", "hf:org/tiny", "tiny") == "published tiny@1: 5 B in 1 file"
    assert console.store.manifest("tiny", 1).meta["source"]["commit"] == "abc"
