"""swaps.py with real processes: a pool gets another program while it works."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from jobs import Versioned
from pools import submit
from system import descendants, until
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import WorkerStartError

pytestmark = pytest.mark.usefixtures("nothing_left")


async def version(pool: ProcessPoolExecutor) -> str:
    reply = await submit(pool, None, b"").future
    return str(reply.meta[0])


def forkservers() -> list[int]:
    return [child for child, line in descendants(os.getpid()).items() if "forkserver_main" in line and _is_top(child)]


def _is_top(pid: int) -> bool:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()


@pytest.mark.asyncio
@pytest.mark.parametrize("drain", [False, True])
async def test_swap_replaces_all_workers(drain: bool) -> None:
    async with ProcessPoolExecutor(2, program=Versioned("1"), label="m@1") as pool:
        before = {status.pid for status in pool.workers()}
        assert [status.generation for status in pool.workers()] == ["m@1", "m@1"]
        await pool.swap(Versioned("2"), label="m@2", drain=drain)
        assert pool.generation == "m@2"
        assert {await version(pool) for _ in range(4)} == {"2"}
        ready = [status for status in pool.workers() if status.state == "idle"]
        assert [status.generation for status in ready] == ["m@2", "m@2"]
        assert not before & {status.pid for status in ready}
        await until(lambda: len(forkservers()) == 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("fault", ["fails", "dies", "preload-fails", "preload-dies"])
async def test_program_that_cannot_start_leaves_the_old_one_at_work(fault: str, drain: bool, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text(fault)
    async with ProcessPoolExecutor(2, program=Versioned("1"), label="m@1") as pool:
        before = {status.pid for status in pool.workers()}
        with pytest.raises(WorkerStartError) as raised:
            await pool.swap(Versioned("2", str(words)), label="m@2", drain=drain)
        if fault.endswith("fails"):
            assert "version 2 cannot be opened" in raised.value.traceback
        assert pool.generation == "m@1"
        assert await version(pool) == "1"
        if not drain:
            assert {status.pid for status in pool.workers() if status.generation == "m@1"} == before
        await until(lambda: len(forkservers()) == 1 and pool.ready == 2)
        await pool.swap(Versioned("3"), label="m@3")
        assert await version(pool) == "3"


@pytest.mark.asyncio
async def test_job_ends_on_the_version_that_it_began_with(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with ProcessPoolExecutor(2, program=Versioned("1")) as pool:
        stream = await submit(pool, "stream", str(go).encode()).future
        assert await anext(stream.body) == b"1"
        await asyncio.wait_for(pool.swap(Versioned("2")), 20)
        assert await version(pool) == "2"
        await anext(stream.body)
        go.touch()
        assert {bytes(piece) async for piece in stream.body} <= {b"1"}
        await until(lambda: len(forkservers()) == 1)
