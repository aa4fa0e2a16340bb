"""worker_processes.py: forkservers of several generations that die, and start again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs import Versioned
from pools import submit
from system import until
from tinysvc import ProcessPoolExecutor

pytestmark = pytest.mark.usefixtures("nothing_left")


def forkserver_pid(pool: ProcessPoolExecutor) -> int:
    """The pid of the forkserver of new workers; 0 while there is none."""
    forkserver = pool._dispatcher.scheduler.generation.forkserver
    return int(forkserver._process.pid) if forkserver.is_ready else 0


@pytest.mark.asyncio
async def test_lost_forkserver_starts_again_with_the_program_of_its_generation(tmp_path: Path) -> None:
    words = tmp_path / "words"
    async with ProcessPoolExecutor(1, program=Versioned("1")) as pool:
        await pool.swap(Versioned("2", str(words)), label="m@2")
        words.write_text("preload-fails")
        killed = forkserver_pid(pool)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: pool._dispatcher.scheduler.backoff.failures == 1)
        words.unlink()
        await until(lambda: pool.ready == 1)
        assert (await submit(pool, None).future).meta[0] == "2"
        assert pool.generation == "m@2"
        assert forkserver_pid(pool) != killed


@pytest.mark.asyncio
async def test_warnings_of_a_program_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with ProcessPoolExecutor(1, program=Versioned("1")) as pool:
        pool._dispatcher._warn(["numpy has started threads"])
        pool._dispatcher._warn(["numpy has started threads"])
        assert pool.warnings == ["numpy has started threads"]
    assert caplog.text.count("numpy has started threads") == 1
