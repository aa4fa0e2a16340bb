"""worker_processes.py: forkservers of several generations that die, and start again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic

import pytest

from jobs import Versioned
from pools import submit
from system import descendants, until
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import WorkerStartError
from tinysvc.pool.forkserver import Forkserver
from tinysvc.pool.frames import FromForkserver, Ready, WorkerEnd

pytestmark = pytest.mark.usefixtures("nothing_left")


def forkserver_pid(pool: ProcessPoolExecutor) -> int:
    """The pid of the forkserver of new workers; 0 while there is none."""
    process = pool._dispatcher.scheduler.generation.forkserver
    return int(process._process.pid) if process.is_ready else 0


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


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["killed", "ended"])
async def test_worker_that_ends_before_it_is_forked_leaves_nothing_behind(how: str) -> None:
    others = descendants(os.getpid()).keys()  # such as the database server that tests share
    async with ProcessPoolExecutor(1, program=Versioned("1")) as pool:
        dispatcher = pool._dispatcher
        before = len(os.listdir("/dev/fd"))
        pool.replace(1)
        successor = dispatcher.scheduler.workers[2]
        if how == "killed":
            dispatcher._carry_out(dispatcher.scheduler.kill(successor, "is not wanted", monotonic()))
        else:
            dispatcher._on_end(WorkerEnd(2, None, "was lost"))
        await until(lambda: list(dispatcher.scheduler.workers) == [3] and pool.ready == 1)
        await until(lambda: len(descendants(os.getpid()).keys() - others) == 2)  # the forkserver and worker 3
        assert len(os.listdir("/dev/fd")) == before


@pytest.mark.asyncio
async def test_forkserver_that_dies_as_it_is_ready_fails_the_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has reported that it is ready, and the task that started it has not gone on."""
    take_frame = Forkserver._on_frame

    def take_frame_and_die(self: Forkserver, head: FromForkserver) -> None:
        take_frame(self, head)
        if isinstance(head, Ready):
            self._process.kill()
            self._process.wait()
            self._read()

    async with ProcessPoolExecutor(1, program=Versioned("1")) as pool:
        monkeypatch.setattr(Forkserver, "_on_frame", take_frame_and_die)
        with pytest.raises(WorkerStartError, match="died when it had loaded"):
            await pool.swap(Versioned("2"))
        assert (await submit(pool, None).future).meta[0] == "1"
