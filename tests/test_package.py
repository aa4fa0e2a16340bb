"""The wheel: it contains the examples and the type marker, and works in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from this checkout and unpack it, as `pip install --target` does."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_contains_examples_and_type_marker(installed: Path) -> None:
    assert (installed / "tinysvc" / "py.typed").exists()
    carried = {path.name for path in (installed / "tinysvc" / "examples").iterdir()}
    assert carried == {path.name for path in (ROOT / "examples").glob("*.py")} | {"inference", "office", "training"}
    for folder in (
        "examples/office",
        "examples/training",
        "cli/template",
        "openapi/docs_page",
        "web/page_parts",
        "jobs/requests/jobs_page",
    ):
        source = ROOT if folder.startswith("examples") else ROOT / "src" / "tinysvc"
        there = {path.name for path in (source / folder).iterdir() if path.is_file()}
        assert {path.name for path in (installed / "tinysvc" / folder).iterdir()} == there
    (metadata,) = installed.glob("tinysvc-*.dist-info")
    assert "tinysvc = tinysvc.__main__:main" in (metadata / "entry_points.txt").read_text()


@pytest.mark.usefixtures("nothing_left")
def test_examples_run_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tinysvc", "examples", "--port", "0", "--cpu-workers", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    with process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("listening on "):
                break
        url = lines[-1].split()[-1]
        assert httpx.get(f"{url}/hello/Ada", timeout=20).json() == {"message": "hello Ada!"}
        assert httpx.get(f"{url}/hello/primes/10", timeout=20).json() == [2, 3, 5, 7]
        process.terminate()
    assert process.returncode == 0
