"""Type checkers other than ours: the examples, and what annotations promise, by pyright."""

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
    """It is written for Node, and loads itself from npm's registry when it is run first."""
    try:
        return pyright("--version").returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.mark.timeout(240)
def test_pyright_finds_what_it_must_and_nothing_else() -> None:
    if not can_run():
        pytest.skip(f"pyright cannot be run here: {pyright('--version').stderr.strip()[-200:]}")
    said = json.loads(pyright("--outputjson", "--pythonpath", sys.executable).stdout)
    assert said["generalDiagnostics"] == []
    assert said["summary"]["filesAnalyzed"] == 1 + len(list((ROOT / "examples").glob("*.py")))
