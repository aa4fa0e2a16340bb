"""core/stdlib_shadowing.py: files beside a service that shadow a module of Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import failed, served, tinysvc
from tinysvc.core.stdlib_shadowing import shadowing_files, stdlib_first

SERVICE = """
from tinysvc import cpu_route

@cpu_route("/")
def root() -> int:
    return 1

if __name__ == "__main__":
    import tinysvc

    tinysvc.run(__name__, port=0)
"""

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(autouse=True)
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage imports modules of the standard library before the program does."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["platform", "queue", "random", "socket", "logging", "json", "tempfile"])
def test_shadowing_file_is_named_in_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / f"{name}.py").write_text("VALUE = 1\n")
    for command in (tinysvc("service.py"), ("service.py",)):
        status, errors = failed(*command, cwd=tmp_path)
        assert (status, errors.count("\n")) == (3, 1)
        assert errors.startswith(f"tinysvc: {tmp_path / name}.py shadows the module {name} of the standard library")
        assert errors.endswith("rename the file\n")


def test_shadowing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "__init__.py").touch()
    (tmp_path / "service.py").write_text(SERVICE)
    status, errors = failed(*tinysvc("service.py"), cwd=tmp_path)
    assert status == 3
    assert "queue shadows the module queue" in errors


def test_file_that_the_program_imported_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("VALUE = 1\n")
    (tmp_path / "service.py").write_text("import random\n" + SERVICE)
    status, errors = failed("service.py", cwd=tmp_path)
    assert status == 3
    assert "random.py shadows the module random" in errors


def test_interactive_program_gets_an_import_error(tmp_path: Path) -> None:
    (tmp_path / "queue.py").touch()
    code = "try:\n    import tinysvc\nexcept ImportError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.stdout.endswith("rename the file\n")


def test_file_that_no_library_imports_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "turtle.py").write_text("VALUE = 7\n")
    (tmp_path / "service.py").write_text(SERVICE.replace("return 1", "import turtle\n    return turtle.VALUE"))
    with served(*tinysvc("service.py"), cwd=tmp_path) as server:
        assert server.get("/").json() == 7


@pytest.mark.parametrize("name", ["platform", "queue", "types", "random", "struct"])
def test_service_in_another_folder_is_served_beside_a_shadowing_file(name: str, tmp_path: Path) -> None:
    """Libraries are loaded before the folder is added to the path, in the server and in the forkserver."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / f"{name}.py").write_text("VALUE = 1\n")
    (tmp_path / "services" / "service.py").write_text(SERVICE)
    with served(*tinysvc("services/service.py"), cwd=tmp_path) as server:
        assert server.get("/").json() == 1


def test_failing_import_of_a_shadowing_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "turtle.py").write_text("raise ValueError\n")
    (tmp_path / "services" / "service.py").write_text("import turtle\n" + SERVICE)
    status, errors = failed(*tinysvc("services/service.py"), cwd=tmp_path)
    assert status == 3
    assert "turtle.py shadows the module turtle of the standard library" in errors


def test_only_python_files_and_packages_shadow(tmp_path: Path) -> None:
    for name in ("queue.py", "service.py", "json.txt"):
        (tmp_path / name).touch()
    (tmp_path / "email").mkdir()
    assert shadowing_files([str(tmp_path), "/nowhere", *sys.path]).items() >= {("queue", str(tmp_path / "queue.py"))}
    assert not {"json", "email", "service"} & shadowing_files([str(tmp_path)]).keys()
    first = stdlib_first([str(tmp_path), *sys.path])
    assert first.index(str(tmp_path)) > max(index for index, path in enumerate(first) if path.endswith("lib-dynload"))
