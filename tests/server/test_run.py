"""run.py: a service is started, printed or refused; messages and exit statuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from commands import HELLO, failed, served, tinysvc
from system import workers_below

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


def test_script_run_as_main_is_served(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        HELLO + "\nif __name__ == '__main__':\n    import tinysvc\n    tinysvc.run(__name__, port=0, cpu_workers=1)\n"
    )
    with served("script.py", cwd=folder) as server:
        assert server.get("/").json() == {"from": "__main__"}
        assert server.get("/pid").json() in workers_below(server.pid)


def test_script_without_the_main_guard_is_refused(folder: Path) -> None:
    (folder / "script.py").write_text(HELLO + "\nimport tinysvc\ntinysvc.run(__name__, port=0, cpu_workers=1)\n")
    status, errors = failed("script.py", cwd=folder)
    assert status == 3
    assert 'write that call under: if __name__ == "__main__":' in errors
    assert "script.py" in errors
    (folder / "pool.py").write_text(
        "from tinysvc import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool:\n    pool.submit(abs, 1).result()\n"
    )
    status, errors = failed("pool.py", cwd=folder)
    assert status == 1
    assert 'write that call under: if __name__ == "__main__":' in errors


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("nowhere.py", 2, r"there is no file or folder 'nowhere\.py' in "),
        ("no.such.module", 2, r"there is no module 'no' \(looked in "),
        ("hello:nothing", 2, "hello has no Service called 'nothing'; leave out ':nothing' to serve the module's own"),
        ("named.py:nothing", 2, r"named has no Service called 'nothing'; name one of those that it has \(app\)"),
        ("empty", 2, "no file in the folder empty has a function with @io_route, @cpu_route or @job_route"),
        ("data.txt", 2, "cannot be imported; a service is a .py file"),
        ("plain.py", 3, "the module plain .* has no function with @io_route, @cpu_route or @job_route"),
        ("broken.py", 3, r"importing .*broken\.py failed:\nTraceback.*\n.*broken\.py\", line 2.*ZeroDivisionError"),
        ("typo.py", 3, r"SyntaxError"),
        ("my.service.py", 2, "cannot be imported"),
        ("closure.py", 3, r"<lambda> \(.*closure\.py:4\): is a lambda, .*define it with def at the module's top level"),
        (
            "nomodel.py",
            3,
            r"a worker cannot start\nTraceback.*\n.*nomodel\.py\", line 5, in model.*\nOSError: no model",
        ),
        ("nodata.py", 3, r"the resource database cannot be opened:\nTraceback.*\nOSError: no database"),
        ("exits.py", 3, r"SystemExit: 4"),
        (
            "nopool.py",
            3,
            r"f \(.*nopool\.py:3\): there is no pool 'gpu'; there is: default; name one of these, or add ",
        ),
    ],
)
def test_mistake_is_one_readable_message(folder: Path, target: str, status: int, says: str) -> None:
    imports = "from tinysvc import cpu_resource, cpu_route, io_resource, io_route\n"
    (folder / "empty").mkdir()
    (folder / "data.txt").touch()
    (folder / "plain.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("x = 1\n1 / 0\n")
    (folder / "typo.py").write_text("def f(:\n")
    (folder / "my.service.py").write_text("\n")
    (folder / "closure.py").write_text(imports + "\n\nh = cpu_route('/')(lambda: None)\n")
    (folder / "nomodel.py").write_text(
        imports + "\n@cpu_resource\ndef model():\n    raise OSError('no model')\n\n"
        "@cpu_route('/')\ndef f(model) -> None: ...\n"
    )
    (folder / "nodata.py").write_text(
        imports + "@io_resource\nasync def database():\n    raise OSError('no database')\n"
        "@io_route('/')\nasync def f(database) -> None: ...\n"
    )
    (folder / "named.py").write_text("from tinysvc import Service\napp = Service()\n")
    (folder / "exits.py").write_text("raise SystemExit(4)\n")
    (folder / "nopool.py").write_text(imports + "\n@cpu_route('/', pool='gpu')\ndef f() -> None: ...\n")
    got, errors = failed(*tinysvc(target), cwd=folder)
    assert re.search("tinysvc: .*" + says, errors, re.DOTALL), errors
    assert got == status
    assert "src/tinysvc" not in errors


def test_used_port_is_named(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        port = server.url.rpartition(":")[2]
        status, errors = failed("-m", "tinysvc", "hello.py", "--port", port, cwd=folder)
        assert status == 3
        assert errors == (
            f"tinysvc: cannot listen on 127.0.0.1:{port}: another process does; "
            "stop it or choose --port (0 takes a free one)\n"
        )
        assert server.get("/").status_code == 200


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"TINYSVC_HOTS": "::1"}, "TINYSVC_HOTS is no variable of tinysvc; did you mean TINYSVC_HOST?"),
        ({"TINYSVC_PORT": "many"}, "TINYSVC_PORT takes a whole number, not 'many'"),
        ({"TINYSVC_QUEUE_SIZE": "-1"}, "queue_size must be at least 0, not -1 (TINYSVC_QUEUE_SIZE)"),
        ({"TINYSVC_POOLS": "gpu:worker=1"}, "'worker' is no option of the pool gpu; did you mean workers?"),
    ],
)
def test_wrong_variable_is_named(folder: Path, variables: dict[str, str], says: str) -> None:
    assert failed("-m", "tinysvc", "hello.py", cwd=folder, **variables) == (2, f"tinysvc: {says}\n")


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--routes", r"GET +/ +io +hello\.root"),
        ("--openapi", r'"operationId": "root"'),
        ("--settings", r"port +8000 +default\n(.*\n)*queue_size +3 +TINYSVC_QUEUE_SIZE"),
    ],
)
def test_flag_prints_instead_of_serving(folder: Path, flag: str, says: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tinysvc", "hello.py", flag],
        cwd=folder,
        env={**os.environ, "TINYSVC_QUEUE_SIZE": "3"},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert re.search(says, shown.stdout)
    assert shown.stderr == ""
    assert "\x1b" not in shown.stdout  # no colours: this is no terminal


def test_unknown_target_cannot_be_printed(folder: Path) -> None:
    assert failed("-m", "tinysvc", "nothing.py", "--routes", cwd=folder)[0] == 2


def test_print_of_a_handler_appears_at_once(folder: Path) -> None:
    (folder / "printing.py").write_text(HELLO + "\n@io_route('/print')\nasync def p() -> None:\n    print('printed')\n")
    with served(*tinysvc("printing.py"), cwd=folder, PYTHONUNBUFFERED="") as server:
        server.get("/print")
        assert server.process.stdout is not None
        assert server.process.stdout.readline() == "printed\n"


CLOSING = """
from tinysvc import io_resource, io_route

@io_resource
async def database():
    yield "open"
    raise OSError("not to be closed")

@io_route("/")
async def root(database: str) -> str:
    return database
"""


@pytest.mark.parametrize("way", ["--no-reload", "--workers=2", "--reload"])
def test_failed_cleanup_is_logged_from_the_authors_line_on(folder: Path, way: str) -> None:
    (folder / "closing.py").write_text(CLOSING)
    with served(*tinysvc("closing.py", way), cwd=folder) as server:
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
        assert server.process.returncode == 0
    expected = (
        "the resource database cannot be closed:\n    Traceback (most recent call last):\n"
        f'      File "{folder / "closing.py"}", line 7, in database\n        raise OSError("not to be closed")\n'
    )
    assert expected in errors
    assert "/tinysvc/" not in errors
