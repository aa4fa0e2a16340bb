"""leftovers.py and worker_channel.py: nothing that a job leaves behind reaches the next job or breaks a frame."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import jobs
import leftovers_jobs
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import DeadlineExceeded, RemoteError, WorkerDied
from tinysvc.pool.leftovers import reset_function


@pytest.mark.asyncio
async def test_timers_handlers_masks_and_profilers_are_reset() -> None:
    async with ProcessPoolExecutor(1) as pool:
        await pool.run(leftovers_jobs.leave_everything_behind)
        assert await pool.run(leftovers_jobs.surroundings) == (False, (0.0, 0.0), (0.0, 0.0), 0, -1, None)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTSTP, signal.SIGALRM, signal.SIGTERM])
@pytest.mark.parametrize("way", leftovers_jobs.HANDLING)
async def test_late_signal_is_discarded_but_ends_children(number: int, way: str, tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        first = await pool.run(leftovers_jobs.process_id)
        await pool.run(leftovers_jobs.leave_a_signal_to_come, number, way, str(tmp_path / "go"))
        await pool.run(leftovers_jobs.process_id)  # the worker resets after it has sent a result: wait for that
        (tmp_path / "go").touch()
        assert await pool.run(leftovers_jobs.wait_for_the_signal, str(tmp_path / "go"), timeout=20) == first
        if number != signal.SIGTSTP:  # SIGTSTP stops them
            assert await pool.run(leftovers_jobs.death_of_children, number) == (-number, -number)
        assert await pool.run(leftovers_jobs.process_id) == first


@pytest.mark.asyncio
async def test_crash_is_reported_after_a_job_that_handled_crashes() -> None:
    async with ProcessPoolExecutor(1) as pool:
        await pool.run(leftovers_jobs.handle_crashes)
        with pytest.raises(WorkerDied, match=r"SIGSEGV[\s\S]*in segfault"):
            await pool.run(jobs.segfault)


@pytest.mark.asyncio
async def test_timer_of_a_stream_is_reset() -> None:
    async with ProcessPoolExecutor(1) as pool:
        assert [item async for item in pool.stream(leftovers_jobs.count_with_an_alarm, 3)] == [0, 1, 2]
        assert (await pool.run(leftovers_jobs.surroundings))[1] == (0.0, 0.0)


@pytest.mark.asyncio
async def test_alarm_while_a_result_is_sent_does_not_cut_it() -> None:
    async with ProcessPoolExecutor(1) as pool:
        first = await pool.run(leftovers_jobs.process_id)
        for size in (100, 100_000, 250_000):
            for after in (0.000_05, 0.000_2, 0.001):
                with contextlib.suppress(
                    leftovers_jobs.TooLong, RemoteError
                ):  # the alarm rang in the job, or while its error was pickled
                    assert await pool.run(leftovers_jobs.big_text_with_an_alarm, size, after) == b"1" * size
        assert await pool.run(leftovers_jobs.process_id) == first


@pytest.mark.asyncio
async def test_exceptions_from_a_thread_left_behind_break_no_frame() -> None:
    async with ProcessPoolExecutor(1) as pool:
        first = await pool.run(leftovers_jobs.process_id)

        async def result_of(function: Callable[..., int], *arguments: int) -> int:
            while True:  # an exception may hit a running job: only a wrong result is a fault
                with contextlib.suppress(leftovers_jobs.TooLong):
                    return await pool.run(function, *arguments)

        with contextlib.suppress(leftovers_jobs.TooLong):  # not again: an exception may hang the start of a thread
            await pool.run(leftovers_jobs.raise_in_the_main_thread)
        for number in range(300):
            assert await result_of(jobs.add, number, 1) == number + 1
        assert await result_of(leftovers_jobs.process_id) == first


@pytest.mark.asyncio
async def test_forked_child_that_returns_from_a_job_writes_no_frame() -> None:
    async with ProcessPoolExecutor(1) as pool:
        assert await pool.run(leftovers_jobs.fork_and_return) > 0
        assert await pool.run(jobs.add, 1, 2) == 3


def test_nothing_is_reset_outside_of_the_main_thread() -> None:
    made = []
    thread = threading.Thread(target=lambda: made.append(reset_function()))
    thread.start()
    thread.join()
    made[0]()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("function", "argument"), [(leftovers_jobs.wait_for_a_lock, ()), (leftovers_jobs.sort_in_c, (10**12,))]
)
async def test_log_has_the_stack_of_a_worker_killed_at_its_deadline(
    function: Callable[..., object], argument: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(DeadlineExceeded):
            await pool.run(function, *argument, timeout=0.2)
        assert await pool.run(jobs.add, 1, 2) == 3
    assert "ran a job past its deadline" in caplog.text
    assert f"in {function.__name__}" in caplog.text
