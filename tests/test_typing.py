"""pyright, a second type checker, on the examples and on the promises of our annotations."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@functools.cache
def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyright", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def can_run() -> bool:
    """Whether pyright runs: its first run downloads it from the npm registry."""
    try:
        return pyright("--version").returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.timeout(240)
def test_pyright_reports_nothing() -> None:
    if not can_run():
        pytest.skip(f"pyright cannot be run here: {pyright('--version').stderr.strip()[-200:]}")
    said = json.loads(pyright("--outputjson", "--pythonpath", sys.executable).stdout)
    assert said["generalDiagnostics"] == []
    assert said["summary"]["filesAnalyzed"] == 1 + len(list((ROOT / "examples").rglob("*.py")))
