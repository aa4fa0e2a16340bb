"""scaffold.py: the tests of a new service pass, and no existing file is changed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from commands import failed, served
from tinysvc import ConfigurationError, __version__
from tinysvc.cli import scaffold
from tinysvc.cli.scaffold import create

ROOT = Path(__file__).parents[2]
WRITTEN = {
    *(".dockerignore", ".gitignore", "Dockerfile", "Makefile", "README.md"),
    *("compose.yaml", "hpa.yaml", "keda.yaml", "kubernetes.yaml"),
    *("my_first.py", "requirements-dev.txt", "requirements.txt", "test_my_first.py"),
}


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    create("my-first")
    return tmp_path / "my-first"


def run(folder: Path, *command: str, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, **variables}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_command_writes_a_service(tmp_path: Path) -> None:
    said = run(tmp_path, sys.executable, "-m", "tinysvc", "--new", "my-first")
    assert said.startswith("wrote my-first: .dockerignore, ")
    assert "cd my-first" in said
    assert {path.name for path in (tmp_path / "my-first").iterdir()} == WRITTEN
    assert list(tmp_path.iterdir()) == [tmp_path / "my-first"]


def test_new_service_passes_its_tests(new: Path) -> None:
    said = run(new, sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error")
    assert "4 passed" in said


def test_make_test(new: Path) -> None:
    """With a .venv that is there, as the first time it would be made by pip from an index."""
    run(new, sys.executable, "-m", "venv", "--without-pip", ".venv")
    (paths,) = (new / ".venv").glob("lib/python*/site-packages")
    (paths / "all.pth").write_text("\n".join(path for path in sys.path if path))
    (new / ".venv" / ".ready").touch()
    said = run(new, "make", "test", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "running the tests\n" in said
    assert "4 passed" in said


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check"])
def test_tools_accept_the_service(new: Path, tool: str) -> None:
    name, *arguments = tool.split()
    run(new, sys.executable, "-m", name, *arguments, ".")


def test_new_service_is_served(new: Path) -> None:
    with served("-m", "tinysvc", "my_first.py", "--port", "0", cwd=new) as server:
        assert server.get("/hello/Ada").text == "hello Ada"
        answer = httpx.post(f"{server.url}/score", json={"text": "kind words"}, timeout=20)
        assert answer.json() == {"words": 2, "score": 0.5}


def test_dockerfile_is_consistent(new: Path) -> None:
    lines = [line for line in (new / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    said = {line.split()[0]: line.partition(" ")[2] for line in lines}
    version = re.match(r"python:3\.(\d+)-slim", said["FROM"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version
    assert f"Programming Language :: Python :: 3.{version[1]}" in project["classifiers"]
    assert said["USER"].split(":")[0] not in ("0", "root")
    copied = {word for line in lines if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]}
    assert copied == {"requirements.txt", "my_first.py"}
    assert (new / ".dockerignore").read_text().split() == ["*", *sorted((f"!{name}" for name in copied), reverse=True)]
    python, *arguments = json.loads(said["CMD"])
    assert python == "python"
    with served(*arguments, cwd=new, TINYSVC_PORT="0", TINYSVC_HOST="0.0.0.0") as server:
        check = json.loads(said["HEALTHCHECK"].partition("CMD ")[2])
        port = server.url.rpartition(":")[2]
        run(new, sys.executable, *[word.replace("8000", port) for word in check[1:]])
    assert "TINYSVC_HOST=0.0.0.0" in shlex.split(said["ENV"])


# Names and places


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1a", "a service is a Python module, which cannot be called '1a'; use 'a'"),
        ("my.x", "cannot be called 'my.x'; use 'my_x'"),
        ("größe", "cannot be called 'größe'; use 'gr_e'"),
        (".", r"cannot be called '\.'; use 'service'"),
        ("...", "cannot be called '...'; use 'service'"),
        ("class", "the name class is a keyword of Python; use another one, such as 'class-service'"),
        ("json", r"the name json is taken by \S+json\S+; use another one, such as 'json-service'"),
        ("sys", "the name sys is taken by a module of Python; use another one, such as 'sys-service'"),
        ("tinysvc", r"the name tinysvc is taken by \S+; use another one, such as 'tinysvc-service'"),
    ],
)
def test_name_that_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        create(name)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_never_changed(new: Path) -> None:
    before = (new / "my_first.py").read_text()
    (new / "my_first.py").write_text("mine")
    status, errors = failed("-m", "tinysvc", "--new", "my-first", cwd=new.parent)
    assert status == 2
    assert errors == "tinysvc: my-first exists, and is not an empty folder; choose another name, or remove it\n"
    assert (new / "my_first.py").read_text() == "mine" != before


def test_service_is_written_to_empty_and_new_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    create("empty")
    create("services/inner")
    assert (tmp_path / "services" / "inner" / "inner.py").exists()


def test_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/x cannot be written: Not a directory"):
        create("file/x")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_target_and_new_exclude_each_other(tmp_path: Path) -> None:
    for arguments in ([], ["hello.py", "--new", "x"]):
        status, errors = failed("-m", "tinysvc", *arguments, cwd=tmp_path)
        assert status == 2
        assert "name one TARGET to serve, or --new NAME" in errors


# Which tinysvc


class Distribution:
    def __init__(self, direct_url: object) -> None:
        self.direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return json.dumps(self.direct_url) if self.direct_url else None


@pytest.mark.parametrize(
    ("direct_url", "requirement"),
    [
        (None, f"tinysvc[metrics]=={__version__}"),
        ({"url": "file:///here", "dir_info": {"editable": True}}, "tinysvc[metrics] @ file:///here"),
        (
            {"url": "https://x.example/t.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "tinysvc[metrics] @ git+https://x.example/t.git@abc",
        ),
    ],
)
def test_requirement_is_the_installed_tinysvc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct_url: object, requirement: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution(direct_url))
    said = create("x")
    assert (tmp_path / "x" / "requirements.txt").read_text() == f"{requirement}\n"
    assert ("before you build the image" in said) == (" @ " in requirement)


def test_from_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", missing)
    assert scaffold._requirement() == f"tinysvc[metrics] @ {ROOT.as_uri()}"
    monkeypatch.setattr(scaffold, "CHECKOUT", ROOT / "tests")
    assert scaffold._requirement() == f"tinysvc[metrics]=={__version__}"
