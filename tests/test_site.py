"""The documentation site: it builds without a warning, loads nothing from other sites, and has every public name."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinysvc

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("mkdocstrings"), reason="mkdocs is not installed; make docs installs it"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


def test_every_page_is_built(site: Path) -> None:
    assert {page.stem for page in site.glob("*.html")} == {page.stem for page in (ROOT / "docs").glob("*.md")} | {"404"}
    assert not list(site.rglob("*.py*"))


def test_site_loads_nothing_from_other_sites(site: Path) -> None:
    for page in site.glob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"?(?:https?:)?//[^\" >]+", page.read_text())
        assert loaded == [], page.name


def test_reference_has_every_public_name(site: Path) -> None:
    page = (site / "reference.html").read_text()
    for name in [*(f"tinysvc.{name}" for name in tinysvc.__all__), "tinysvc.testing.serving"]:
        assert f'id="{name}"' in page, name
