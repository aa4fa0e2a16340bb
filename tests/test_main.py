"""__main__.py: the targets and options of the command line."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from commands import HELLO, failed, served, tinysvc
from system import workers_below

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


# What is served


def test_file_is_served(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        assert server.lines[:-1] == ["GET  /     io   hello.root", "GET  /pid  cpu  hello.pid"]
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:[0-9]+", server.lines[-1])
        assert server.get("/").json() == {"from": "hello"}
        assert server.get("/pid").json() in workers_below(server.pid)


def test_module_in_a_package_is_served(folder: Path) -> None:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("WORD = 'helped'\n")
    (package / "module.py").write_text(
        HELLO
        + "\nfrom .helper import WORD\nfrom tinysvc import Service\n"
        + "@cpu_route('/word')\ndef word() -> str:\n    return WORD\n"
        + "other = Service(word, prefix='/other')\n"
    )
    for target in ("package.module", "package/module.py"):
        with served(*tinysvc(target), cwd=folder) as server:
            assert server.get("/word").text == "helped"
            assert server.get("/").json() == {"from": "package.module"}
    with served(*tinysvc("package.module:other"), cwd=folder) as server:
        assert server.get("/other/word").text == "helped"
        assert server.get("/").status_code == 404


def test_folder_is_served_with_an_index(folder: Path) -> None:
    (folder / "second.py").write_text(HELLO)
    (folder / "_private.py").write_text("raise RuntimeError\n")
    (folder / "helper.py").write_text("X = 1\n")
    with served(*tinysvc("."), cwd=folder) as server:
        assert server.get("/hello").json() == {"from": "hello"}
        assert server.get("/second").json() == {"from": "second"}
        assert server.get("/second/pid").json() in workers_below(server.pid)
        assert server.get("/").headers["location"] == "docs"
        assert "/second/pid" in server.get("/openapi.json").json()["paths"]


def test_module_global_called_service_is_served(folder: Path) -> None:
    (folder / "made.py").write_text(HELLO + "\nfrom tinysvc import Service\nservice = Service(pid, prefix='/made')\n")
    with served(*tinysvc("made.py"), cwd=folder) as server:
        assert server.get("/made/pid").status_code == 200
        assert server.get("/").status_code == 404


def test_unix_socket_is_served(folder: Path) -> None:
    path = folder / "socket"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with served(*tinysvc("hello.py", "--unix", str(path)), cwd=folder) as server:
        assert server.lines[-1] == f"listening on unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x", timeout=20) as client:
            assert client.get("/").json() == {"from": "hello"}
        status, errors = failed(*tinysvc("hello.py", "--unix", str(path)), cwd=folder)
        assert status == 3
        assert "another process does" in errors
        server.process.terminate()
        assert server.process.wait(30) == 0
    assert not path.exists()


def test_flags_override_variables(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder, TINYSVC_CPU_WORKERS="1") as server:
        assert len(workers_below(server.pid)) == 2  # the flag is stronger
    with served("-m", "tinysvc", "hello.py", cwd=folder, TINYSVC_CPU_WORKERS="1", TINYSVC_PORT="0") as server:
        assert len(workers_below(server.pid)) == 1


def test_pools_from_flags_variables_and_code(folder: Path) -> None:
    (folder / "pooled.py").write_text(
        HELLO + "\nfrom tinysvc import Pool, Service\n@cpu_route('/train', pool='training')\ndef train() -> None: ...\n"
        "service = Service(pid, train, pools={'training': Pool(workers=3)})\n"
    )

    def workers(*flags: str, **variables: str) -> dict[str, int]:
        with served(*tinysvc("pooled.py", *flags), cwd=folder, **variables) as server:
            pools = server.get("/readyz").json()["pools"]
            assert len(workers_below(server.pid)) == sum(pool["workers"] for pool in pools.values())
            return {name: pool["workers"] for name, pool in pools.items()}

    assert workers() == {"default": 2, "training": 3}
    assert workers(TINYSVC_POOLS="training:workers=1,queue_size=2") == {"default": 2, "training": 1}
    assert workers("--pools", "training:workers=2", TINYSVC_POOLS="training:workers=1") == {"default": 2, "training": 2}
    assert workers("--pools", "default:workers=1") == {"default": 1, "training": 3}


# Mistakes


UNITS = "sizes are bytes, times are seconds"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--porrt", "1"], "--porrt is no option; did you mean --port?"),
        (["--cpu-worker=2"], "--cpu-worker is no option; did you mean --cpu-workers?"),
        (["--rotes"], "--rotes is no option; did you mean --routes?"),
        (["--max-body-size=1MiB"], f"argument --max-body-size: takes a whole number, not '1MiB'; {UNITS}"),
        (["--port", "x"], "argument --port: takes a whole number, not 'x'"),
        (
            ["other.py"],
            "other.py is a second TARGET, but only one is served; name a folder to serve all services in it",
        ),
    ],
)
def test_wrong_option_is_named(folder: Path, words: list[str], says: str) -> None:
    usage = "usage: python -m tinysvc [OPTION ...] TARGET\n"
    assert failed("-m", "tinysvc", "hello.py", *words, cwd=folder) == (2, f"{usage}tinysvc: error: {says}\n")


def test_help_and_version(folder: Path) -> None:
    out = subprocess.run([sys.executable, "-m", "tinysvc", "--help"], capture_output=True, text=True, check=True).stdout
    assert "python -m tinysvc examples" in out
    assert "--max-body-size" in out
    out = subprocess.run(
        [sys.executable, "-m", "tinysvc", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r"tinysvc [0-9.]+\n", out)
