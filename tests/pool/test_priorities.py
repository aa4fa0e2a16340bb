"""priorities.py: a forkserver that loads for a swap has a lower priority, and gets it back."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from jobs import Versioned
from system import descendants, exists, parent, until
from tinysvc import ProcessPoolExecutor
from tinysvc.pool import priorities
from tinysvc.pool.priorities import STEP, may_raise_priority

OURS = os.getpriority(os.PRIO_PROCESS, 0)


def nice_values() -> list[int]:
    """Of the forkservers of this process, the oldest first."""
    found = descendants(os.getpid()).items()
    pids = sorted(pid for pid, line in found if "forkserver_main" in line and parent(pid) == os.getpid())
    return [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids]


async def load_and_swap(path: Path) -> list[int]:
    """The nice values of the forkservers while the second one loads; both and all workers have ours afterwards."""
    path.write_text("preload-slow")
    async with ProcessPoolExecutor(1, program=Versioned("1")) as pool:
        swap = asyncio.create_task(pool.swap(Versioned("2", str(path))))
        await exists(Path(f"{path}.slow"))
        while_it_loads = nice_values()
        path.unlink()
        await swap
        assert os.getpriority(os.PRIO_PROCESS, pool.workers()[-1].pid) == OURS
        await until(lambda: nice_values() == [OURS])
    return while_it_loads


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif(not may_raise_priority(), reason="only with CAP_SYS_NICE or RLIMIT_NICE")
async def test_new_program_loads_with_low_priority(tmp_path: Path) -> None:
    assert sorted(await load_and_swap(tmp_path / "words")) == [OURS, OURS + STEP]


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_priority_that_cannot_be_raised_again_is_not_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priorities, "may_raise_priority", lambda: False)
    assert await load_and_swap(tmp_path / "words") == [OURS, OURS]


@pytest.mark.asyncio
async def test_system_without_autogroups_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = 0

    def refuse(pid: int, nice: int) -> None:
        nonlocal refusals
        refusals += 1
        raise BlockingIOError if refusals < 3 else FileNotFoundError

    monkeypatch.setattr(priorities, "_set_autogroup", refuse)
    monkeypatch.setattr(priorities, "_PAUSE", 0.001)
    await priorities.restore_priority(os.getpid())
    assert refusals == 3
    assert os.getpriority(os.PRIO_PROCESS, 0) == OURS
