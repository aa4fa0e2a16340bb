"""The source tree: files live in rooms, imports point down only, and each file has its test file."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tinysvc

SOURCE = Path(tinysvc.__file__).parent
TESTS = Path(__file__).parent
FLOORS = [
    {"core"},
    {"wire", "pool", "telemetry", "models"},
    {"http.py", "executor.py", "binding"},
    {"service", "client"},
    {"web"},
    {"openapi"},
    {"runtime"},
    {"jobs", "dashboard", "grpc"},
    {"server"},
    {"testing.py"},
    {"cli", "pytest_plugin.py"},
    {"__main__.py"},
]
"""The rooms, and the files at the top level, from bottom to top. Rooms on one floor do not import each other."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FILES = sorted(
    path.relative_to(SOURCE)
    for path in SOURCE.rglob("*.py")
    if "template" not in path.parts and path.relative_to(SOURCE).parts[0] != "examples"
)
MODULES = [file for file in FILES if file.name != "__init__.py"]


def name_of(file: Path) -> str:
    """The dotted name of a file's module, without `tinysvc`."""
    return ".".join(file.with_suffix("").parts)


BY_NAME = {name_of(file): file for file in MODULES}


def room_of(file: Path) -> str:
    return file.parts[0]


@cache
def imports_of(file: Path) -> list[tuple[Path, str]]:
    """Each name that the file imports from tinysvc, with the file that it comes from."""
    found = []
    for node in ast.walk(ast.parse((SOURCE / file).read_text())):
        for module, name in _imported(file, node):
            if f"{module}.{name}".strip(".") in BY_NAME:
                found.append((BY_NAME[f"{module}.{name}".strip(".")], ""))
            elif module in BY_NAME:
                found.append((BY_NAME[module], name))
    return found


def _imported(file: Path, node: ast.AST) -> list[tuple[str, str]]:
    if isinstance(node, ast.Import):
        names = [each.name for each in node.names if each.name.startswith("tinysvc.")]
        return [(name.removeprefix("tinysvc."), "") for name in names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        module = ".".join([*file.parts[: len(file.parts) - node.level], *([module] if module else [])])
    elif module == "tinysvc" or module.startswith("tinysvc."):
        module = module.removeprefix("tinysvc").removeprefix(".")
    else:
        return []
    return [(module, each.name) for each in node.names]


def test_every_room_has_a_floor() -> None:
    assert {room_of(file) for file in MODULES} == set(FLOOR_OF)


def test_top_level_is_small() -> None:
    assert len([file for file in FILES if len(file.parts) == 1]) <= 12


@pytest.mark.parametrize("file", MODULES, ids=str)
def test_imports_point_down(file: Path) -> None:
    for imported, _ in imports_of(file):
        own, other = room_of(file), room_of(imported)
        assert own == other or FLOOR_OF[other] < FLOOR_OF[own], f"{file} imports {imported}"


def test_subfolders_of_a_room_do_not_import_each_other() -> None:
    """The room's own files put them together."""
    crossing = [
        f"{file} imports {imported}"
        for file in MODULES
        for imported, _ in imports_of(file)
        if len(file.parts) > 2 < len(imported.parts)
        if room_of(file) == room_of(imported) and file.parent != imported.parent
    ]
    assert not crossing


def test_no_imports_form_a_circle() -> None:
    list(TopologicalSorter({file: {imported for imported, _ in imports_of(file)} for file in MODULES}).static_order())


def test_no_private_name_is_imported() -> None:
    private = [
        f"{file} imports {name} from {imported}"
        for file in MODULES
        for imported, name in imports_of(file)
        if name.startswith("_")
    ]
    assert not private


def test_room_init_files_are_empty() -> None:
    """A worker that imports one file of a room must not load the others."""
    assert not [file for file in FILES if file.name == "__init__.py" and len(file.parts) > 1 and read(file)]


def read(file: Path) -> str:
    return (SOURCE / file).read_text()


def test_names_on_demand_exist() -> None:
    for name in tinysvc.__all__:
        assert getattr(tinysvc, name) is not None


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports a test file by its name alone."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_no_test_file_imports_another() -> None:
    """Shared helpers are in tests/support."""
    names = {path.stem for path in TESTS.rglob("test_*.py")}
    importing = [
        f"{path.name} imports {node.module}"
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in names
    ]
    assert not importing


def test_every_file_has_its_test_file() -> None:
    """In the same folder of tests/. The test file of models/store.py may be called test_models_store.py."""
    tested = {path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    assert not [file for file in MODULES if not tested & possible_test_files(file)]


def possible_test_files(file: Path) -> set[Path]:
    name = file.stem.strip("_")
    names = [name, f"{file.parent.name}_{name}"] if len(file.parts) > 1 else [name]
    return {file.parent / f"test_{each}.py" for each in names}


def test_pool_knows_no_http() -> None:
    for file in MODULES:
        if room_of(file) in ("pool", "executor.py"):
            assert "Request" not in read(file), file
            assert "Response" not in read(file), file


def loaded_by(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(out.stdout.split())


def test_worker_loads_neither_server_nor_loop() -> None:
    code = "from tinysvc import cpu_route, io_route; import tinysvc.pool.forkserver_main, tinysvc.runtime.cpu_endpoints"
    unwanted = {"asyncio", "concurrent.futures", "uvloop", "anyio", "httptools"}
    assert not (unwanted | {"tinysvc.server.server", "tinysvc.executor"}) & loaded_by(code)


def test_pool_loads_no_server() -> None:
    loaded = loaded_by("from tinysvc import ProcessPoolExecutor")
    assert not {"uvloop", "anyio", "httptools", "tinysvc.http", "tinysvc.server.server"} & loaded
