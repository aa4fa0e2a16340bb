"""The README and docs: every Python block runs, every file named exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinysvc
from tinysvc.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """A block that begins with `# name.py` is written to that file; the others run, in the folder of the files."""
    for number, block in enumerate(BLOCK.findall(page.read_text())):
        name = re.match(r"# (\w+\.py)\n", block)
        (tmp_path / (name[1] if name else f"block{number}.txt")).write_text(block)
        if not name:
            code = f"exec(open('block{number}.txt').read())"
            subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=50)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("name", ["options", "limits"])
def test_the_page_is_what_its_script_writes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    script = importlib.import_module(name)
    assert (ROOT / "docs" / f"{name}.md").read_text() == script.page(), f"run: python docs/{name}.py"


def test_every_limit_is_on_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    assert importlib.import_module("limits").missing() == {"max_jobs"}  # a habit, not a bound


def test_the_map_of_files_is_complete() -> None:
    readme = (ROOT / "README.md").read_text()
    for module in Path(tinysvc.__file__).parent.glob("[!_]*.py"):
        assert f"  {module.name} " in readme
    for example in (ROOT / "examples").glob("*.py"):
        assert example.stem in readme


def test_public_names_are_documented() -> None:
    for name in tinysvc.__all__:
        assert getattr(tinysvc, name).__doc__ or name in ("Handler", "request_id")
    assert Settings.__doc__
