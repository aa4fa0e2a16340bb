"""models/__main__.py: which store a command uses, and its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models_console import ModelsConsole, console
from s3_servers import BUCKET, S3Server, s3_server
from tinysvc.models import object_storage

__all__ = ["console"]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def test_command_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("weights")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("TINYSVC_MODELS", None)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tinysvc.models", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30)

    done = command("publish", "churn", "weights.txt", "--alias", "production", "--by", "ada")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("published churn@1: 7 B in 1 file\nchurn@production names version 1 since ")
    assert (tmp_path / "models" / "churn" / "1.json").is_file()
    failed = command("show", "churn@staging")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (f"tinysvc: {tmp_path}/models has no churn@staging: churn has production\n")


def test_store_is_named_by_flag_or_variable(console: ModelsConsole, tmp_path: Path) -> None:
    console.publish()
    assert "churn" in console.run("list")
    other = str(tmp_path / "other")
    assert console.run("--models", other, "list") == console.run("list", "--models", other)
    assert console.run("list", f"--models={other}") == f"tinysvc: the models folder {other} does not exist"
    assert console.status == 3


def test_store_that_does_not_exist_is_reported_with_the_remedy(console: ModelsConsole) -> None:
    assert console.run("list").endswith("does not exist; name the store with --models or TINYSVC_MODELS")
    assert console.status == 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["list", "--models", "ftp://x"], 2, "a folder or a URL with s3://, gs://, az://, not ftp://"),
        (["list", "--models-keys", "/nowhere.pem"], 2, "/nowhere.pem: No such file"),
        (["show", "churn@9"], 1, "has no churn@9: it has 1"),
        (["publish", "churn", "/nowhere"], 1, "/nowhere does not exist"),
        (["import", "nix:x", "churn"], 2, "begins with mlflow: or hf:"),
    ],
)
def test_exit_status_says_whose_fault_it_is(
    arguments: list[str], status: int, message: str, console: ModelsConsole
) -> None:
    console.publish()
    assert message in console.run(*arguments)
    assert console.status == status


def test_wrong_variable_is_reported(console: ModelsConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSVC_MODEL", "x")
    assert "did you mean TINYSVC_MODELS?" in console.run("list")
    assert console.status == 2


def test_full_disk_is_reported(console: ModelsConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/models/x")

    monkeypatch.setattr("tinysvc.models.__main__.open_store", full)
    assert console.run("list") == "tinysvc: list /models/x failed: No space left on device; free some space"
    assert console.status == 3


def test_interrupted_command_ends_quietly(console: ModelsConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinysvc.models.__main__.open_store", interrupted)
    assert console.run("list") == ""
    assert console.status == 130


def test_whole_life_of_a_model_in_an_object_store(
    server: S3Server, console: ModelsConsole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TINYSVC_MODELS", f"s3://{BUCKET}/life")
    for content in ("one", "two"):
        (tmp_path / "weights.txt").write_text(content)
        console.run("publish", "churn", str(tmp_path / "weights.txt"))
        assert console.status == 0
    for version in ("1", "2"):
        console.run("alias", "churn", "production", version)
    assert "names version 1 since" in console.run("rollback", "churn", "production")
    assert console.run("verify").endswith("2 versions read, 0 damaged")
    assert console.documents("gc", "--keep", "1")[0]["versions"] == []
    assert console.documents("list") == [{"name": "churn", "versions": [1, 2], "aliases": {"production": 1}}]


def test_object_store_that_overwrites_is_refused_before_the_first_change(
    server: S3Server, console: ModelsConsole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "weights.txt").write_text("weights")
    publish = ("publish", "churn", str(tmp_path / "weights.txt"), "--models", f"s3://{BUCKET}/refused")
    server.ignores_create = True
    try:
        assert "ignores create-if-absent" in console.run(*publish)
        assert console.status == 3
    finally:
        server.recover()
    assert console.run("list", *publish[-2:]) == f"s3://{BUCKET}/refused has no artifacts yet"


def test_object_store_that_is_away_is_reported(
    server: S3Server, console: ModelsConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**server.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_storage, "RETRIES", object_storage.NO_RETRIES)
    assert "s3://company/models does not answer" in console.run("list", "--models", "s3://company/models")
    assert console.status == 3
