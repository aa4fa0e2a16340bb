"""dispatcher.py with real processes: arenas, replaced workers, memory, and a blocked loop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import uvloop

import jobs
from pools import assert_healthy, submit
from system import exists, until, wait_until, workers_below
from tinysvc.core.errors import DeadlineExceeded, JobRefused, NoWorkers, PoolClosed, RemoteError, WorkerDied
from tinysvc.core.shutdown import STALL_THRESHOLD
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool import body_memory
from tinysvc.pool.arena import BIG, Arena
from tinysvc.pool.crash_loops import CRASH_LIMIT

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZES = [BIG - 1, BIG, 5_000_000]


def arena_of(data: bytes) -> Arena:
    arena = Arena()
    arena.write(data)
    return arena


# Big bodies


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES)
async def test_big_body_and_big_result_use_arenas(size: int) -> None:
    data = os.urandom(size)
    async with ProcessPoolExecutor(1, program=jobs.upper_program) as pool:
        for body in (data, arena_of(data)):
            for _ in range(3):  # the worker gets a new arena for each big result
                reply = await submit(pool, "m", arena_of(data) if isinstance(body, Arena) else body).future
                assert bytes(reply.body) == data.upper()
                assert isinstance(reply.body, memoryview) == (size >= BIG)
            assert (await submit(pool, "m", b"small").future).body == b"SMALL"
        assert pool.ready == 1


@pytest.mark.asyncio
async def test_later_jobs_do_not_overwrite_a_big_result() -> None:
    async with ProcessPoolExecutor(1, program=jobs.upper_program) as pool:
        first = await submit(pool, "m", b"a" * BIG).future
        second = await submit(pool, "m", b"b" * BIG).future
        assert bytes(first.body) == b"A" * BIG
        assert bytes(second.body) == b"B" * BIG


@pytest.mark.asyncio
async def test_big_arrays_are_shared_not_pickled() -> None:
    async with ProcessPoolExecutor(1) as pool:
        array = numpy.arange(1_000_000, dtype=float)
        result = await pool.run(numpy.negative, array)
        assert numpy.array_equal(result, -array)
        result[0] = 5  # the result is writable, like an unpickled one


@pytest.mark.asyncio
async def test_arena_of_a_dropped_job_is_closed(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        running = asyncio.create_task(pool.run(jobs.wait_for, str(tmp_path / "go")))
        await asyncio.sleep(0)
        arena = arena_of(b"x" * BIG)
        job = submit(pool, None, arena)
        pool.abandon(job, even_running=False)
        assert arena.descriptor == -1
        assert job.future.exception() is not None
        (tmp_path / "go").touch()
        await running


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("claim", "error"),
    [*((size, "in an arena that holds 0") for size in (1, 1 << 40, -1)), ("much", r"Expected `int`, got `str`")],
)
async def test_worker_with_a_wrong_arena_size_is_killed(claim: object, error: str) -> None:
    async with ProcessPoolExecutor(1, program=partial(jobs.lying_program, claim)) as pool:
        with pytest.raises(WorkerDied, match=error):
            await submit(pool, None, b"").future
        await until(lambda: pool.ready == 1)


@pytest.mark.asyncio
async def test_crash_between_big_results_leaves_nothing_behind() -> None:
    async with ProcessPoolExecutor(2) as pool:
        tasks = [asyncio.create_task(pool.run(jobs.echo, b"x" * 3_000_000)) for _ in range(4)]
        tasks.append(asyncio.create_task(pool.run(jobs.segfault)))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, WorkerDied) for result in results) == 1
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_arenas_are_reused_after_their_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "SPARE", 3600)
    async with ProcessPoolExecutor(1, program=jobs.upper_program) as pool:
        numbers, replies = set(), []
        for n in range(20):
            arena = pool.arenas.take()
            numbers.add(os.fstat(arena.descriptor).st_ino)
            arena.write(b"%c" % (97 + n) * (BIG + n))
            replies.append(await submit(pool, "m", arena).future)
            if n % 3 == 0:
                replies[-1].body = bytes(replies[-1].body)  # its mapping is released
        assert len(numbers) == 1
        for n, reply in enumerate(replies):
            assert bytes(reply.body) == b"%c" % (65 + n) * (BIG + n)


@pytest.mark.asyncio
async def test_spare_arenas_of_a_pool_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "SPARE", 0.01)
    async with ProcessPoolExecutor(2, program=jobs.upper_program) as pool:
        before = len(os.listdir("/dev/fd"))
        arenas = [pool.arenas.take() for _ in range(6)]
        for arena in arenas:
            arena.write(b"a" * BIG)
        replies = await asyncio.gather(*(submit(pool, "m", arena).future for arena in arenas))
        await until(lambda: all(arena.descriptor == -1 for arena in arenas))
        await asyncio.to_thread(replies.clear)  # another thread may release the last reference
        await until(lambda: len(os.listdir("/dev/fd")) <= before)


@pytest.mark.asyncio
@pytest.mark.parametrize("keeps", ["a part", "an array", "in an error", "nothing"])
async def test_arena_of_a_body_that_a_handler_keeps_is_not_reused(keeps: str) -> None:
    async with ProcessPoolExecutor(1, program=jobs.keeping_program) as pool:
        inodes = set()
        for n in range(3):
            arena = pool.arenas.take()
            inodes.add(os.fstat(arena.descriptor).st_ino)
            arena.write(b"%d" % n * BIG)
            try:
                reply = await submit(pool, keeps, arena).future
                assert reply.meta == [48 + number for number in range(n + 1)] * (keeps != "nothing")
            except RemoteError:
                assert keeps == "in an error"
        assert len(inodes) == (1 if keeps == "nothing" else 3)


# Replaced workers


@pytest.mark.asyncio
@pytest.mark.parametrize("max_jobs", [1, 3])
async def test_no_worker_runs_more_than_max_jobs(max_jobs: int) -> None:
    async with ProcessPoolExecutor(2, max_jobs=max_jobs) as pool:
        pids = await asyncio.gather(*(pool.run(jobs.pid) for _ in range(20)))
        assert max(Counter(pids).values()) <= max_jobs
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_successor_is_ready_before_the_old_worker_exits(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    program = partial(jobs.upper_program, str(closed))
    async with ProcessPoolExecutor(1, program=program, max_jobs=2) as pool:
        await submit(pool, None, b"").future
        (old,) = workers_below(os.getpid())
        await submit(pool, None, b"").future
        assert pool.ready == 1  # before the successor is ready
        await until(lambda: workers_below(os.getpid()) not in ([old], []) and pool.ready == 1)
        await exists(closed)  # it has closed its resources


@pytest.mark.asyncio
async def test_growing_worker_is_replaced_without_a_gap() -> None:
    async with ProcessPoolExecutor(1, max_memory=150_000_000) as pool:
        first = await pool.run(jobs.pid)
        lowest = 1
        for _ in range(100):
            pid = await pool.run(jobs.leak, 20_000_000)
            lowest = min(lowest, pool.ready)
            if pid != first:
                break
        else:
            pytest.fail("the worker has grown by 2 GB and was not replaced")
        assert lowest == 1
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_memory_limit_raises_memory_error_and_replaces_the_worker() -> None:
    async with ProcessPoolExecutor(1, memory_limit=1 << 30) as pool:
        first = await pool.run(jobs.pid)
        with pytest.raises(MemoryError):
            await pool.run(bytearray, 2 << 30)
        await assert_healthy(pool)
        assert await pool.run(jobs.pid) != first


@pytest.mark.asyncio
async def test_preloaded_data_is_opened_once_and_shared(tmp_path: Path) -> None:
    """Four workers that share 200 MB need less than 60 MB more than one worker."""
    opened = tmp_path / "opened"
    private = {}
    for size in (1, 4):
        async with ProcessPoolExecutor(size, program=jobs.Preloaded(str(opened))) as pool:
            replies = await asyncio.gather(*(submit(pool, None, b"").future for _ in range(20)))
            assert {reply.meta for reply in replies} == {200_000_000}
            private[size] = sum(map(private_memory, workers_below(os.getpid())))
            assert opened.read_text() == "open "
        wait_until(lambda: opened.read_text() == "open close ", "the forkserver has closed the preloaded data")
        opened.unlink()
    assert private[4] - private[1] < 60_000_000


def private_memory(pid: int) -> int:
    """Bytes of memory that the process does not share."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))


# Deadlines, and a blocked loop


@pytest.mark.asyncio
async def test_blocked_loop_kills_no_worker() -> None:
    """The result came in time, but the loop could not read it: it counts."""
    async with ProcessPoolExecutor(1) as pool:
        pid = await pool.run(jobs.pid)
        task = asyncio.create_task(pool.run(jobs.pid, timeout=0.2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.2 + 2 * STALL_THRESHOLD)
        assert await task == pid


@pytest.mark.asyncio
async def test_deadline_is_postponed_by_a_standstill(tmp_path: Path) -> None:
    """As when server and workers are stopped by SIGSTOP: the job does not run meanwhile."""
    async with ProcessPoolExecutor(1) as pool:
        pid = await pool.run(jobs.pid)
        path = tmp_path / "go"
        running = asyncio.create_task(pool.run(jobs.wait_for, str(path), timeout=1.0))
        queued = asyncio.create_task(pool.run(jobs.pid, timeout=1.0))
        await asyncio.sleep(0.1)
        time.sleep(1.5)
        await asyncio.sleep(0.3)  # enough to end late jobs
        path.touch()
        await running
        assert await queued == pid


@pytest.mark.asyncio
async def test_thousand_deadlines_at_once() -> None:
    async with ProcessPoolExecutor(1) as pool:
        tasks = [asyncio.create_task(pool.run(jobs.spin, timeout=0.1 + n / 10_000)) for n in range(1000)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, TimeoutError) for result in results)
        assert 1 <= sum(isinstance(result, DeadlineExceeded) for result in results) < 20
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_crash_loop_is_refused() -> None:
    async with ProcessPoolExecutor(2, program=jobs.crashing_program) as pool:
        for _ in range(CRASH_LIMIT):
            with pytest.raises(WorkerDied):
                await submit(pool, "crash", b"", None, None, "poison").future
        with pytest.raises(JobRefused, match="has crashed 3 workers"):
            submit(pool, "crash", b"", None, None, "poison")
        assert (await submit(pool, "fine", b"", None, None, "innocent").future).meta == "fine"
        await until(lambda: pool.ready == 2)


# Workers that start, pools that end


@pytest.mark.asyncio
async def test_worker_killed_at_its_start_is_replaced(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    async with ProcessPoolExecutor(1, program=partial(jobs.slow_while_file_exists, str(slow))) as pool:
        slow.touch()
        (first,) = workers_below(os.getpid())
        os.kill(first, signal.SIGKILL)
        await until(lambda: workers_below(os.getpid()) not in ([first], []))
        job = asyncio.ensure_future(submit(pool, None, b"waits").future)
        (second,) = workers_below(os.getpid())
        os.kill(second, signal.SIGKILL)
        await until(lambda: workers_below(os.getpid()) not in ([second], []))
        assert not job.done()  # one failed start is tolerated
        os.kill(workers_below(os.getpid())[0], signal.SIGKILL)
        with pytest.raises(NoWorkers):
            await job
        slow.unlink()
        await until(lambda: pool.ready == 1)
        assert (await submit(pool, None, b"x").future).body == b"x"


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [jobs.segfault, jobs.kill_self, jobs.raise_value_error, jobs.spin])
async def test_fault_does_not_prolong_the_drain(fault: Callable[[], Any], tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1)
    await pool.start()
    faulty = asyncio.create_task(pool.run(fault, timeout=0.2))
    queued = asyncio.create_task(pool.run(jobs.add, 1, 2))
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(pool.aclose(30))
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed):
        await pool.run(jobs.pid)
    outcome = (await asyncio.gather(faulty, return_exceptions=True))[0]
    assert isinstance(outcome, (WorkerDied, ValueError, DeadlineExceeded))
    assert await queued == 3  # by the successor
    await closing


def test_tiny_timeouts_work_under_uvloop() -> None:
    """In uvloop, a timer that is due at once is a handle without a time."""

    async def main() -> None:
        async with ProcessPoolExecutor(1) as pool:
            for _ in range(4):
                with pytest.raises(TimeoutError):
                    await pool.run(jobs.spin, timeout=1e-9)
            await assert_healthy(pool)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.asyncio
@pytest.mark.parametrize("turns", [0, 1, 5, 50])
async def test_pool_may_be_closed_while_it_starts(turns: int) -> None:
    pool = ProcessPoolExecutor(2)
    start = asyncio.create_task(pool.start())
    for _ in range(turns):
        await asyncio.sleep(0.002)
    had_started = start.done()  # on a fast machine
    await pool.aclose()
    (outcome,) = await asyncio.gather(start, return_exceptions=True)
    assert had_started or isinstance(outcome, (PoolClosed, RuntimeError))


@pytest.mark.asyncio
async def test_small_result_limit_does_not_apply_to_errors() -> None:
    async with ProcessPoolExecutor(1, max_result_size=10, program=jobs.upper_program) as pool:
        with pytest.raises(RemoteError, match="ValueError"):
            await submit(pool, "surrogate", b"").future
        with pytest.raises(RemoteError, match="max_result_size is 10"):
            await submit(pool, "m", b"x" * 11).future
        assert pool.ready == 1
