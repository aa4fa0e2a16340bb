"""docs/architecture.md: every file, class, function and constant that the page names is where the page says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import tinysvc

ROOT = Path(__file__).parents[1]
SOURCE = Path(tinysvc.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)(?:: ([\w.]+))?`")
"""`pool/arena.py` or `pool/arena.py: Arena.take`. A path begins in src/tinysvc, or with tests/ or docs/."""


def names_on_page() -> list[tuple[str, str]]:
    return sorted({(match[1], match[2] or "") for match in NAMED.finditer(PAGE)})


def file_of(path: str) -> Path:
    return (ROOT if path.startswith(("tests/", "docs/")) else SOURCE) / path


@cache
def defined_in(file: Path) -> frozenset[str]:
    """All functions, classes and variables of a file: `name`, or `Class.name`."""
    return frozenset(_names(ast.parse(file.read_text()), ""))


def _names(parent: ast.AST, prefix: str) -> list[str]:
    found = []
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.append(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            found += _names(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign):
            targets = [each for target in node.targets for each in ast.walk(target)]
            found += [prefix + each.id for each in targets if isinstance(each, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.append(prefix + node.target.id)
    return found


def where_it_is(name: str) -> str:
    """The files that define something of this name now: what to write on the page instead."""
    last = name.rpartition(".")[2]
    files = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    found = [f"{file.name}: {each}" for file in files for each in defined_in(file) if each.rpartition(".")[2] == last]
    return ", ".join(sorted(found)) or "nowhere"


@pytest.mark.parametrize(("path", "name"), names_on_page(), ids=lambda value: value or "-")
def test_name_on_page_exists(path: str, name: str) -> None:
    file = file_of(path)
    assert file.exists(), f"there is no {path}; {name} is in: {where_it_is(name) if name else 'a file that has moved'}"
    assert not name or name in defined_in(file), f"{path} has no {name}; that name is in: {where_it_is(name)}"


def test_page_names_every_room() -> None:
    rooms = {folder.parent.name for folder in SOURCE.glob("*/__init__.py")}
    assert {room for room in rooms if f"| `{room}/` |" not in PAGE} == set()


def test_page_walks_through_the_rooms() -> None:
    """The page must not lose its names, say by another way to write them."""
    files = {path.partition("/")[0] for path, _ in names_on_page()}
    assert {"core", "wire", "http.py", "executor.py", "pool", "binding", "service", "runtime", "server"} <= files
    assert len(names_on_page()) > 100
