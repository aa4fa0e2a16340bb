"""importable.py: programs that workers cannot import are refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tinysvc.core.errors import WorkerStartError
from tinysvc.core.stdlib_shadowing import FORKSERVER_VARIABLE
from tinysvc.pool.forkserver import Forkserver
from tinysvc.pool.program import function_program
from worker_ends import OPTIONS

HANDLERS_IN_MAIN = """
import sys
import tinysvc

@tinysvc.cpu_route("/cpu")
def cpu() -> str:
    return "cpu"

if __name__ == "__main__":
    tinysvc.run(__name__, port=0)
"""


@pytest.mark.parametrize("words", [["-m", "app"], ["app"], ["-"], ["-c", HANDLERS_IN_MAIN]])
def test_unimportable_handlers_are_refused_in_one_sentence(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text(HANDLERS_IN_MAIN)
    done = subprocess.run(
        [sys.executable, *words], input=HANDLERS_IN_MAIN, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("tinysvc: cpu (")
    assert "move it to another module" in line


def test_pool_of_interactive_program_runs_importable_functions(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        from tinysvc import ProcessPoolExecutor
        def double(x):
            return 2 * x
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(pow, 2, 3).result())
            print(pool.submit(double, 2).exception())
    """)
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    result, sentence = done.stdout.splitlines()
    assert result == "8"
    assert "move it to another module" in sentence


@pytest.mark.parametrize("how", ["frozen", "started", "unknown"])
@pytest.mark.asyncio
async def test_frozen_program_does_not_start_itself(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif how == "started":  # by a program that used its executable as Python
        monkeypatch.setenv(FORKSERVER_VARIABLE, "1")
    else:
        monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: None)
    forkserver = Forkserver(function_program, OPTIONS, 1, lambda *_: None, lambda: None)
    with pytest.raises(WorkerStartError, match="needs new Python processes, and this program's executable"):
        await forkserver.start()
