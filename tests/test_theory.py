"""docs/threats.md and docs/faults.md: every row names a test, and every named test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from paths import ROOT

PAGES = ("threats.md", "faults.md")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def named_on(page: str) -> list[tuple[str, str]]:
    return TEST.findall((ROOT / "docs" / page).read_text())


def functions_in(file: Path) -> set[str]:
    """The functions of a file, and those of its classes: a class may be a contract that several files run."""
    functions, nodes = (ast.FunctionDef, ast.AsyncFunctionDef), ast.parse(file.read_text()).body
    nodes += [inner for node in nodes if isinstance(node, ast.ClassDef) for inner in node.body]
    return {node.name for node in nodes if isinstance(node, functions)}


@pytest.mark.parametrize("page", PAGES)
def test_every_named_test_exists(page: str) -> None:
    named = named_on(page)
    functions = {file: functions_in(ROOT / file) if (ROOT / file).exists() else set() for file, _ in named}
    assert [f"{file}::{name}" for file, name in named if name not in functions[file]] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_row_names_a_test(page: str) -> None:
    lines = re.findall(r"^\|.*", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    rows = [line for line in lines if not line.startswith("|--") and not line.endswith("| shown by |")]
    assert len(rows) > 20
    assert [row for row in rows if not TEST.search(row)] == []


@pytest.mark.parametrize("file", ["tests/test_threats.py", "tests/test_faults.py", "tests/test_disconnects.py"])
def test_every_test_of_a_threat_or_fault_is_on_a_page(file: str) -> None:
    named = {name for page in PAGES for path, name in named_on(page) if path == file}
    assert {name for name in functions_in(ROOT / file) if name.startswith("test_")} - named == set()
