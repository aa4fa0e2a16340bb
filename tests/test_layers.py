"""The house: imports point down only, and every module has its test file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import tinysvc

SOURCE = Path(tinysvc.__file__).parent
FLOORS: list[list[set[str]]] = [  # floor -> groups; the groups of one floor do not know each other
    [
        {
            "errors",
            "messages",
            "events",
            "settings",
            "forks",
            "ending",
            "cores",
            "encoding",
            "arena",
            "codings",
            "contexts",
            "current",
            "conditional",
            "cookies",
            "forms",
            "query",
            "ranges",
            "samples",
            "shadows",
            "shapes",
        }
    ],
    [
        {"http", "bodies", "heads", "chunked", "sendfile"},
        {"routing", "router"},
        {"binding", "aliases", "annotations", "formvalues", "mismatches", "places", "results", "schemas"},
        {
            "executor",
            "plain",
            "dispatcher",
            "books",
            "processes",
            "worker",
            "descendants",
            "telling",
            "foreign",
            "inprocess",
            "leftovers",
            "inherited",
        },
    ],
    [
        {
            *("service", "running", "wiring", "resources", "background", "iohandlers", "errorhandlers", "openapi"),
            *("adapter", "hints", "batching", "caching", "calls", "endpoints", "pages"),
            *("compression", "cors", "limits", "middleware", "negotiation", "proxies", "security", "static"),
            *("websocket", "owntask"),
        }
    ],
    [
        {
            "server",
            "tables",
            "supervisor",
            "firstprocess",
            "reload",
            "sockets",
            "notify",
            "tls",
            "watchdog",
            "slices",
            "loading",
            "scaffold",
        }
    ],
    [{"testing"}],
    [{"bench"}, {"pytest_plugin"}],
    [{"__main__"}],
]
PLACE = {
    name: (floor, number)
    for floor, groups in enumerate(FLOORS)
    for number, group in enumerate(groups)
    for name in group
}


def modules() -> list[str]:
    return sorted(path.stem for path in SOURCE.glob("*.py") if path.stem != "__init__")


def imported_by(module: str) -> set[str]:
    tree = ast.parse((SOURCE / f"{module}.py").read_text())
    return {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module in PLACE
    }


def test_every_module_has_a_floor_and_a_test_file() -> None:
    assert set(modules()) == set(PLACE)
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {name.strip("_") for name in modules()} <= tested


def test_imports_point_down() -> None:
    for module in modules():
        floor, group = PLACE[module]
        for imported in imported_by(module):
            other_floor, other_group = PLACE[imported]
            assert other_floor < floor or (other_floor, other_group) == (floor, group), f"{module} imports {imported}"


def test_no_two_files_import_each_other() -> None:
    for module in modules():
        for imported in imported_by(module):
            assert module not in imported_by(imported), f"{module} and {imported}"


def test_http_knows_no_pool_and_the_executor_no_http() -> None:
    for name in next(group for group in FLOORS[1] if "executor" in group):
        text = (SOURCE / f"{name}.py").read_text()
        assert "Request" not in text
        assert "Response" not in text


def loaded_by(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(out.stdout.split())


def test_a_worker_loads_neither_server_nor_loop() -> None:
    loaded = loaded_by("from tinysvc import cpu_route, io_route; import tinysvc.worker, tinysvc.endpoints")
    unwanted = {"asyncio", "concurrent.futures", "uvloop", "anyio", "httptools", "tinysvc.server", "tinysvc.executor"}
    assert not unwanted & loaded


def test_a_pool_loads_no_server() -> None:
    loaded = loaded_by("from tinysvc import ProcessPoolExecutor")
    assert not {"uvloop", "anyio", "httptools", "tinysvc.http", "tinysvc.server"} & loaded
