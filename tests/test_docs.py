"""README and docs: every code block runs, every link leads somewhere, every option and limit is listed."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import tinysvc
from console import HAS_CURL, terminal
from tinysvc.__main__ import parser
from tinysvc.core.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks").glob("*.md"))]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_run(page: Path, tmp_path: Path) -> None:
    """A block that begins with `# name.py` is written to that file; the others run, in the folder of the files."""
    blocks = BLOCK.findall(page.read_text())
    if not HAS_CURL and any("curl " in block for kind, block in blocks if kind == "console"):
        pytest.skip("curl is not installed")
    with terminal(tmp_path) as console:
        for kind, block in blocks:
            name = re.match(r"# ([\w/]+\.py)\n", block)
            if kind == "console":
                console.type(block)
            elif name:
                (tmp_path / name[1]).parent.mkdir(exist_ok=True)
                (tmp_path / name[1]).write_text(block)
            else:
                run_python(block, tmp_path)


def run_python(block: str, folder: Path) -> None:
    (folder / "block.txt").write_text(block)
    code = "exec(open('block.txt').read())"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=50)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_exist(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if ":" in path:
            continue
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            wrong.append(link)
    assert wrong == []


def anchors_of(page: Path) -> set[str]:
    """The anchors of the headings. GitHub and mkdocs make the same ones for plain words."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["options", "limits"])
def test_generated_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    script = importlib.import_module(name)
    assert (ROOT / "docs" / f"{name}.md").read_text() == script.page(), f"run: python docs/{name}.py"


def test_table_of_metrics_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    text = (ROOT / "docs" / "telemetry.md").read_text()
    assert importlib.import_module("metrics").page(text) == text, "run: python docs/metrics.py"


def test_every_limit_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    assert importlib.import_module("limits").missing() == set()


@pytest.mark.parametrize("name", ["options", "limits"])
def test_every_flag_and_variable_exists(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    known = {field.name for field in fields(Settings)}
    variables = re.findall(r"TINYSVC_([A-Z_]+)", page)
    assert {variable.lower() for variable in variables} - known == set()
    flags = re.findall(r"--[a-z][a-z-]*", page)
    assert set(flags) - set(re.findall(r"--[a-z][a-z-]*", parser().format_help())) == set()
    assert len(flags) >= len(variables) > 0


@pytest.mark.parametrize("name", ["options", "limits"])
def test_table_lines_have_all_cells(name: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / "docs" / f"{name}.md").read_text(), re.MULTILINE):
        widths = {line: line.count(" | ") for line in table.splitlines() if not line.startswith("|-")}
        assert len(set(widths.values())) == 1, widths
        assert "|  |" not in table


def test_readme_map_names_every_room_and_example() -> None:
    readme = (ROOT / "README.md").read_text()
    source = Path(tinysvc.__file__).parent
    rooms = [f"{folder.parent.name}/" for folder in source.glob("*/__init__.py")]
    for name in [*rooms, *(file.name for file in source.glob("*.py"))]:
        assert f"  {name} " in readme, name
    for example in (ROOT / "examples").glob("*.py"):
        assert example.stem in readme
