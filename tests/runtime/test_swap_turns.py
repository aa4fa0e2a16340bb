"""swap_turns.py: one server process swaps at a time, and the others learn what failed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tinysvc.runtime.swap_turns import SwapTurns

FAILED = [["a", "b"], ["c"]]


def turns(folder: Path, service: str = "models churn@production") -> SwapTurns:
    return SwapTurns(folder, service)


@pytest.mark.asyncio
async def test_second_process_waits_for_its_turn(tmp_path: Path) -> None:
    async with turns(tmp_path).turn():
        waiting = asyncio.create_task(entered(turns(tmp_path)))
        other_service = asyncio.create_task(entered(turns(tmp_path, "another")))
        await other_service
        assert not waiting.done()
    await waiting


async def entered(other: SwapTurns) -> None:
    async with other.turn():
        pass


@pytest.mark.asyncio
async def test_turn_of_a_killed_process_is_over(tmp_path: Path) -> None:
    code = """if True:
        import asyncio, sys
        from pathlib import Path
        from tinysvc.runtime.swap_turns import SwapTurns
        async def hold():
            async with SwapTurns(Path(sys.argv[1]), "models churn@production").turn():
                print("held", flush=True)
                await asyncio.sleep(100)
        asyncio.run(hold())
    """
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        waiting = asyncio.create_task(entered(turns(tmp_path)))
        await asyncio.sleep(0)
        assert not waiting.done()
        process.kill()
    await asyncio.wait_for(waiting, 30)


@pytest.mark.asyncio
async def test_folder_that_does_not_exist_needs_no_turn(tmp_path: Path) -> None:
    async with turns(tmp_path / "none").turn():
        turns(tmp_path / "none").note_failed(["a"])
    assert turns(tmp_path / "none").failed() == []


def test_failures_are_noted_once_for_the_processes_of_one_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in (["b", "a"], ["c"], ["a", "b"]):
        turns(tmp_path).note_failed(state)
    assert turns(tmp_path).failed() == FAILED
    monkeypatch.setattr("tinysvc.runtime.swap_turns.family", lambda: "another start")
    assert turns(tmp_path).failed() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"family": null, "failed": 3}'])
def test_damaged_file_has_no_failures(tmp_path: Path, content: bytes) -> None:
    turns(tmp_path).note_failed(["a"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert turns(tmp_path).failed() == []
