"""What can go wrong in a job, times when: one job pays for it, nobody else, and the pool is whole again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import jobs
from conftest import workers_below
from test_executor import assert_healthy, until
from tinysvc.errors import DeadlineExceeded, RemoteError, WorkerDied
from tinysvc.executor import ProcessPoolExecutor

pytestmark = pytest.mark.usefixtures("nothing_left")


class Fault(NamedTuple):
    """A job, and what its caller gets: an error with this text in it, or a result."""

    job: Callable[..., Any]
    outcome: Any
    message: str = ""
    timeout: float | None = None

    def __str__(self) -> str:
        job = self.job.func if isinstance(self.job, partial) else self.job
        return f"{job.__name__}{self.job.args}" if isinstance(self.job, partial) else job.__name__


FAULTS = [
    # The worker dies
    Fault(jobs.segfault, WorkerDied, "SIGSEGV"),
    Fault(jobs.abort, WorkerDied, "SIGABRT"),
    Fault(jobs.abort_from_a_thread, WorkerDied, "SIGABRT"),
    Fault(partial(jobs.exit_now, 0), WorkerDied, "status 0"),
    Fault(partial(jobs.exit_now, 3), WorkerDied, "status 3"),
    Fault(jobs.kill_self, WorkerDied, "SIGKILL"),
    Fault(jobs.start_thread_and_exit, WorkerDied, "status 4"),
    Fault(jobs.return_deadly, WorkerDied, "SIGKILL"),
    Fault(jobs.close_all_descriptors, WorkerDied, "status 1"),
    # It breaks the protocol
    Fault(jobs.die_in_mid_frame, WorkerDied, "status 5"),
    Fault(jobs.write_garbage, WorkerDied, "was killed: it sent"),
    # It does not end
    Fault(jobs.spin, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    Fault(jobs.sleep_in_c, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    Fault(jobs.match_catastrophically, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    Fault(jobs.sleep_with_signals_blocked, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    Fault(jobs.loop_and_ignore_sigterm, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    Fault(jobs.stop_self, DeadlineExceeded, "its deadline of 0.3 s", 0.3),
    # It raises
    Fault(jobs.raise_value_error, ValueError, "no such value"),
    Fault(jobs.raise_deep_chain, ValueError, "number 999"),
    Fault(jobs.raise_picky, RemoteError, "Picky: picky"),
    Fault(jobs.raise_unpicklable, RemoteError, "Unpicklable"),
    Fault(jobs.raise_bad_str, jobs.BadStr),
    Fault(jobs.raise_system_exit, RemoteError, "SystemExit: 7"),
    Fault(jobs.raise_keyboard_interrupt, RemoteError, "KeyboardInterrupt"),
    Fault(jobs.raise_stop_iteration, RemoteError, "StopIteration"),
    Fault(jobs.raise_generator_exit, RemoteError, "GeneratorExit"),
    Fault(jobs.raise_cancelled, RemoteError, "CancelledError"),
    Fault(jobs.raise_memory_error, MemoryError),
    Fault(jobs.overflow, RecursionError, "maximum recursion depth"),
    # Its result cannot travel
    Fault(jobs.return_lambda, (AttributeError, RemoteError), "lambda"),
    Fault(jobs.return_bomb, RemoteError, "unpickled"),
    Fault(jobs.return_too_much, ValueError, "max_result_size is 67108864"),
    Fault(jobs.return_too_deep, RecursionError, "recursion"),
    # It does what it should not, and nobody is harmed
    Fault(jobs.start_thread_and_return, "started"),
    Fault(jobs.change_signals_and_folder, "changed"),
    Fault(jobs.change_limits, "changed"),
    Fault(jobs.close_standard_descriptors, "printed"),
]


async def assert_outcome(fault: Fault, pool: ProcessPoolExecutor) -> None:
    if isinstance(fault.outcome, str):
        assert await pool.run(fault.job, timeout=fault.timeout) == fault.outcome
        return
    with pytest.raises(fault.outcome) as raised:
        await pool.run(fault.job, timeout=fault.timeout)
    if fault.message:
        assert fault.message in str(raised.value)


async def beside_an_innocent(fault: Fault, go: Path) -> None:
    async with ProcessPoolExecutor(2) as pool:
        innocent = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
        await asyncio.sleep(0)
        await assert_outcome(fault, pool)
        go.touch()
        assert await innocent in workers_below(os.getpid())
        await assert_healthy(pool)


async def in_the_queue(fault: Fault, go: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        before = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
        await asyncio.sleep(0)
        faulty = asyncio.create_task(assert_outcome(fault, pool))
        await asyncio.sleep(0)
        behind = [asyncio.create_task(pool.run(jobs.add, n, 1)) for n in range(3)]
        await asyncio.sleep(0)
        go.touch()
        await before
        await faulty
        assert await asyncio.gather(*behind) == [1, 2, 3]
        await assert_healthy(pool)


async def while_another_is_replaced(fault: Fault, go: Path) -> None:
    async with ProcessPoolExecutor(2) as pool:
        os.kill(workers_below(os.getpid())[0], signal.SIGKILL)
        await until(lambda: not {1, 2} <= set(pool._dispatcher.books.workers))
        faulty = asyncio.create_task(assert_outcome(fault, pool))
        await asyncio.sleep(0)
        innocent = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
        await asyncio.sleep(0)
        go.touch()
        await faulty
        await innocent
        await assert_healthy(pool)


async def in_a_drain(fault: Fault, go: Path) -> None:
    pool = ProcessPoolExecutor(1)
    await pool.start()
    faulty = asyncio.create_task(assert_outcome(fault, pool))
    await asyncio.sleep(0)
    queued = asyncio.create_task(pool.run(jobs.add, 1, 2))
    await asyncio.sleep(0)
    await asyncio.gather(pool.aclose(30), faulty)
    assert await queued == 3


WHEN = [beside_an_innocent, in_the_queue, while_another_is_replaced, in_a_drain]


@pytest.mark.asyncio
@pytest.mark.parametrize("when", WHEN, ids=lambda when: when.__name__)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_one_job_pays_for_its_fault(
    fault: Fault, when: Callable[[Fault, Path], Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    await when(fault, tmp_path / "go")
