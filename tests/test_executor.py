"""executor.py: a pool with real processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import jobs
from paths import SUPPORT
from pools import assert_healthy, submit
from system import descendants, exists, until, wait_until, workers_below
from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    NoWorkers,
    PoolClosed,
    QueueFull,
    RemoteError,
    WorkerDied,
    WorkerStartError,
)
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool.frames import Call, pickle_pieces
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.state import Job

pytestmark = pytest.mark.usefixtures("nothing_left")


# Results


@pytest.mark.asyncio
async def test_run_returns_the_result() -> None:
    async with ProcessPoolExecutor(2) as pool:
        assert await pool.run(jobs.add, 1, b=2) == 3
        assert await pool.run(jobs.pid) in workers_below(os.getpid())
        assert await pool.run(jobs.pid) != os.getpid()


@pytest.mark.asyncio
async def test_each_job_gets_its_own_result() -> None:
    async with ProcessPoolExecutor(2) as pool:
        assert await asyncio.gather(*(pool.run(jobs.echo, n) for n in range(500))) == list(range(500))


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 1_000_000, 20_000_000])
async def test_bodies_of_any_size_are_sent_both_ways(size: int) -> None:
    async with ProcessPoolExecutor(1) as pool:
        data = os.urandom(size)
        assert await pool.run(jobs.echo, data) == data


@pytest.mark.asyncio
async def test_stream_yields_while_the_generator_runs() -> None:
    async with ProcessPoolExecutor(1) as pool:
        assert [item async for item in pool.stream(jobs.count, 1000)] == list(range(1000))
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_unread_stream_pauses_its_generator(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        stream = pool.stream(jobs.count_and_note, str(tmp_path / "note"))
        await anext(stream)
        noted = -1
        while noted != (now := int((tmp_path / "note").read_text() or 0)):  # until the generator waits
            noted = now
            await asyncio.sleep(0.2)
        assert noted < 40  # 64 KiB each: the high-water mark, and the socket buffers of the kernel
        await stream.aclose()
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_program_runs_submitted_frames(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    async with ProcessPoolExecutor(1, program=partial(jobs.upper_program, str(closed))) as pool:
        reply = await submit(pool, {"a": 1}, b"body").future
        assert reply == JobReply([{"a": 1}], b"BODY")
        reply = await submit(pool, "stream", b"a").future
        assert reply.meta == "streaming"
        assert [piece async for piece in reply.body] == [b"a", b"A"]
    assert closed.exists()  # an orderly end closes the resources


# Faults; test_faults.py has their table


@pytest.mark.asyncio
async def test_error_carries_the_remote_traceback() -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="no such value") as raised:
            await pool.run(jobs.raise_value_error)
        assert isinstance(raised.value.__cause__, RemoteError)
        assert "in raise_value_error" in raised.value.__cause__.traceback
        assert "tinysvc/worker.py" not in raised.value.__cause__.traceback


@pytest.mark.asyncio
async def test_unpicklable_function_fails_at_once() -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises((pickle.PicklingError, AttributeError)):
            await pool.run(lambda: 1)
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_idle_worker_that_is_killed_is_replaced() -> None:
    async with ProcessPoolExecutor(2) as pool:
        before = workers_below(os.getpid())
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        await until(
            lambda: (
                len(pool._dispatcher.scheduler.workers) == 2
                and pool.ready == 2
                and not {1, 2} & set(pool._dispatcher.scheduler.workers)
            )
        )
        assert not set(before) & set(workers_below(os.getpid()))
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_too_big_result_fails_alone() -> None:
    async with ProcessPoolExecutor(1, max_result_size=1_000_000) as pool:
        with pytest.raises(ValueError, match="max_result_size is 1000000"):
            await pool.run(bytes, 1_000_001)
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_grandchild_does_not_hide_the_death_of_its_worker(tmp_path: Path) -> None:
    others = set(descendants(os.getpid()))
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(WorkerDied, match="status 9"):
            await pool.run(jobs.fork_child_and_exit, str(tmp_path / "forked"))
        await assert_healthy(pool)
        wait_until(lambda: len(set(descendants(os.getpid())) - others) == 2, "only forkserver and worker are left")


@pytest.mark.asyncio
async def test_dead_forkserver_is_replaced() -> None:
    async with ProcessPoolExecutor(2) as pool:
        forkserver = next(child for child, line in descendants(os.getpid()).items() if "forkserver_main" in line)
        job = asyncio.create_task(pool.run(jobs.spin))
        await until(lambda: any(worker.job for worker in pool._dispatcher.scheduler.workers.values()))
        children = workers_below(os.getpid())
        os.kill(forkserver, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await job
        wait_until(lambda: not set(children) & set(descendants(1)), "the orphans were killed by the kernel")
        await assert_healthy(pool)


# Deadlines


@pytest.mark.asyncio
@pytest.mark.parametrize("stuck", [jobs.spin, jobs.sleep_in_c])
async def test_deadline_stops_the_job(stuck: Callable[[], Any], tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        (before,) = workers_below(os.getpid())
        with pytest.raises(DeadlineExceeded, match=r"ran past its deadline of 0\.1 s"):
            await pool.run(stuck, timeout=0.1)
        await assert_healthy(pool)
        assert before not in descendants(os.getpid())


@pytest.mark.asyncio
async def test_deadline_kills_the_whole_process_group(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        job = asyncio.create_task(pool.run(jobs.start_subprocess_and_spin, str(tmp_path / "started"), timeout=30))
        await exists(tmp_path / "started")
        await until(lambda: any("sleep 3600" in line for line in descendants(os.getpid()).values()))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await until(lambda: not any("sleep 3600" in line for line in descendants(os.getpid()).values()))
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_stopped_worker_is_killed_at_the_deadline(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        (worker,) = workers_below(os.getpid())
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            await pool.run(jobs.pid, timeout=0.1)
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_job_past_its_deadline_in_the_queue_never_starts(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        go, touched = tmp_path / "go", tmp_path / "touched"
        running = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineInQueue, match="waited past its deadline") as raised:
            await pool.run(jobs.touch, str(touched), timeout=0.05)
        assert raised.value.retry_after >= 1
        go.touch()
        await running
        await assert_healthy(pool)
        assert not touched.exists()


@pytest.mark.asyncio
async def test_later_job_with_an_earlier_deadline_is_on_time() -> None:
    async with ProcessPoolExecutor(2) as pool:
        late = asyncio.create_task(pool.run(jobs.spin, timeout=30))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await pool.run(jobs.spin, timeout=0.05)
        assert not late.done()
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        await assert_healthy(pool)


# Queue and abandoned jobs


@pytest.mark.asyncio
async def test_queue_is_bounded(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1, queue_size=2) as pool:
        go = tmp_path / "go"
        tasks = [asyncio.create_task(pool.run(jobs.wait_for, str(go))) for _ in range(3)]
        await until(lambda: pool.waiting == 2)
        with pytest.raises(QueueFull, match="2 jobs wait already") as raised:
            await pool.run(jobs.pid)
        assert raised.value.retry_after >= 1
        go.touch()
        await asyncio.gather(*tasks)
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_cancelled_queued_job_is_dropped(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        go, touched = tmp_path / "go", tmp_path / "touched"
        running = asyncio.create_task(pool.run(jobs.wait_for, str(go)))
        queued = asyncio.create_task(pool.run(jobs.touch, str(touched)))
        await until(lambda: pool.waiting == 1)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        assert not pool.waiting
        go.touch()
        worker = await running
        assert await pool.run(jobs.pid) == worker  # it was not killed
        assert not touched.exists()


@pytest.mark.asyncio
async def test_cancelled_running_job_is_killed(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        running = asyncio.create_task(pool.run(jobs.touch_and_spin, str(tmp_path / "started")))
        await exists(tmp_path / "started")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_abandoned_job_that_ends_soon_is_not_killed() -> None:
    async with ProcessPoolExecutor(1, program=jobs.upper_program) as pool:
        pool._dispatcher.scheduler.mean_start = 60.0  # a replacement takes a minute: the job is not killed
        for even_running in (False, True):
            job = submit(pool, None, b"a")
            pool.abandon(job, even_running=even_running)
            assert (await job.future).body == b"A"
        assert set(pool._dispatcher.scheduler.workers) == {1}


@pytest.mark.asyncio
async def test_abandoned_job_that_runs_on_is_killed(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        job = pool.submit_job(Job([], pickle.dumps((jobs.spin, (), {})), kind=Call))
        pool.abandon(job, even_running=True)
        assert not job.future.done()
        with pytest.raises(JobAbandoned):
            await job.future
        await assert_healthy(pool)


# Start and end


@pytest.mark.asyncio
async def test_failing_initializer_fails_the_start() -> None:
    pool = ProcessPoolExecutor(2, initializer=jobs.initialize_badly)
    with pytest.raises(WorkerStartError) as raised:
        await pool.start()
    assert "in initialize_badly" in raised.value.traceback


@pytest.mark.asyncio
async def test_initializer_runs_once_in_each_worker(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    async with ProcessPoolExecutor(2, initializer=jobs.initialize, initargs=(str(path),)):
        assert path.read_text() == "xx"


@pytest.mark.asyncio
async def test_failed_replacement_is_tried_again(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    async with ProcessPoolExecutor(1, program=partial(jobs.failing_while_file_exists, str(broken))) as pool:
        broken.touch()
        os.kill(workers_below(os.getpid())[0], signal.SIGKILL)
        await until(lambda: pool._dispatcher.scheduler.backoff.failures > 1)
        with pytest.raises(NoWorkers, match="the resource cannot be opened"):
            await submit(pool, None, b"").future
        broken.unlink()
        await until(lambda: pool.ready == 1)
        assert (await submit(pool, None, b"x").future).body == b"x"


@pytest.mark.asyncio
async def test_aclose_lets_jobs_finish(tmp_path: Path) -> None:
    pool = ProcessPoolExecutor(1)
    await pool.start()
    go = tmp_path / "go"
    tasks = [asyncio.create_task(pool.run(jobs.wait_for, str(go))) for _ in range(2)]
    await until(lambda: pool.waiting == 1)
    closing = asyncio.create_task(pool.aclose(30))
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed):
        await pool.run(jobs.pid)
    go.touch()
    await asyncio.gather(*tasks, closing)


@pytest.mark.asyncio
async def test_aclose_kills_jobs_that_do_not_finish() -> None:
    pool = ProcessPoolExecutor(1)
    await pool.start()
    task = asyncio.create_task(pool.run(jobs.spin))
    await until(lambda: any(worker.job for worker in pool._dispatcher.scheduler.workers.values()))
    await pool.aclose(0.05)
    with pytest.raises(PoolClosed):
        await task


@pytest.mark.asyncio
async def test_aclose_twice_or_before_the_start_is_harmless() -> None:
    pool = ProcessPoolExecutor(1)
    await pool.aclose()
    pool = ProcessPoolExecutor(1)
    await pool.start()
    await pool.aclose()
    await pool.aclose()


@pytest.mark.parametrize("how", ["idle", "busy", "with a thread in the forkserver"])
def test_kill_9_of_the_owner_leaves_no_process(how: str, tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = tmp_path / "owner.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, sys, threading, time
        if "thread" in {how!r}:
            threading.Thread(target=time.sleep, args=(3600,)).start()
        sys.path.insert(0, {str(SUPPORT)!r})
        import jobs
        from tinysvc import ProcessPoolExecutor
        async def main():
            async with ProcessPoolExecutor(2) as pool:
                if {how!r} == "idle":
                    jobs.touch({str(started)!r})
                    await asyncio.sleep(3600)
                await pool.run(jobs.touch_and_spin, {str(started)!r})
        if __name__ == "__main__":
            asyncio.run(main())
        """)
    )
    owner = subprocess.Popen([sys.executable, str(script)])
    wait_until(started.exists, "the job has started")
    family = set(descendants(owner.pid))
    assert len(family) == 3  # the forkserver and two workers
    owner.kill()
    owner.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family), "the whole family is gone", 2)


# Without a loop


def test_submit_and_map_without_a_loop() -> None:
    with ProcessPoolExecutor(2) as pool:
        assert pool.submit(jobs.add, 1, 2).result(20) == 3
        assert list(pool.map(jobs.add, range(20), range(20))) == [2 * n for n in range(20)]
        with pytest.raises(ValueError, match="no such value"):
            pool.submit(jobs.raise_value_error).result(20)
        with pytest.raises(WorkerDied):
            pool.submit(jobs.segfault).result(20)
        assert pool.submit(jobs.add, 1, 2).result(20) == 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(jobs.pid)


@pytest.mark.asyncio
async def test_submit_from_the_loop_and_from_a_thread() -> None:
    async with ProcessPoolExecutor(1) as pool:
        assert await asyncio.wrap_future(pool.submit(jobs.add, 1, 2)) == 3
        future = await asyncio.to_thread(pool.submit, jobs.add, 2, 3)
        assert await asyncio.wrap_future(future) == 5


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="greater than 0, not 0"):
        ProcessPoolExecutor(0)
    with pytest.raises(TypeError, match="callable, not 5"):
        ProcessPoolExecutor(1, initializer=5)  # type: ignore[arg-type]


# Hostile workers, and mistakes


@pytest.mark.asyncio
async def test_unknown_signal_is_named_by_its_number() -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(WorkerDied, match="was killed by signal 35"):
            await pool.run(jobs.kill_self_with, 35)
        await assert_healthy(pool)


@pytest.mark.asyncio
@pytest.mark.parametrize("trick", ["error", "pickled"])
async def test_worker_cannot_make_the_server_unpickle(tmp_path: Path, trick: str) -> None:
    async with ProcessPoolExecutor(1, program=partial(jobs.hostile_program, str(tmp_path / "owned"))) as pool:
        with pytest.raises((RemoteError, WorkerDied)):
            await submit(pool, trick, b"").future
        assert not (tmp_path / "owned").exists()


@pytest.mark.asyncio
async def test_frames_after_a_protocol_error_are_discarded(caplog: pytest.LogCaptureFixture) -> None:
    async with ProcessPoolExecutor(1, program=partial(jobs.hostile_program, "/nowhere")) as pool:
        evil = submit(pool, "wrong number", b"")
        good = submit(pool, "honest", b"next")
        with pytest.raises(WorkerDied, match="was killed: it sent a Result for job 77"):
            await evil.future
        assert (await good.future).body == b"next"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("trick", "error"),
    [
        ("ready", "said a second time that it is ready"),
        ("failed start", "reported a failed start after it was ready"),
        ("piece", "sent a Chunk for job 1, but has <Job 1 running>"),
        ("end of a stream", "sent a StreamEnd for job 1, but has <Job 1 running>"),
        ("body in use", "sent a BodyInUse for job 1, but has <Job 1 running>"),
    ],
)
async def test_frame_out_of_turn_is_a_protocol_error(trick: str, error: str) -> None:
    async with ProcessPoolExecutor(1, program=partial(jobs.hostile_program, "/nowhere")) as pool:
        with pytest.raises(WorkerDied, match=f"was killed: it {error}"):
            await submit(pool, trick).future
        assert (await submit(pool, "honest", b"next").future).body == b"next"


@pytest.mark.asyncio
async def test_stream_for_a_call_is_a_protocol_error() -> None:
    async with ProcessPoolExecutor(1) as pool:
        with pytest.raises(WorkerDied, match="was killed: it sent a StreamBegin for job 1"):
            await pool.run(jobs.stream_in_disguise)
        assert await pool.run(jobs.add, 1, 1) == 2


@pytest.mark.asyncio
async def test_job_needs_a_pool_that_has_started() -> None:
    pool = ProcessPoolExecutor(1, program=jobs.upper_program)
    with pytest.raises(RuntimeError, match="has not been started"):
        submit(pool, None)
    await pool.aclose()
    with pytest.raises(PoolClosed):
        submit(pool, None)


@pytest.mark.asyncio
async def test_unencodable_meta_takes_no_worker() -> None:
    async with ProcessPoolExecutor(1, program=jobs.upper_program) as pool:
        with pytest.raises(TypeError):
            submit(pool, object(), b"")
        assert (await submit(pool, None, b"a").future).body == b"A"


@pytest.mark.asyncio
async def test_error_message_with_surrogates_is_escaped() -> None:
    async with ProcessPoolExecutor(1, program=jobs.upper_program) as pool:
        with pytest.raises(RemoteError, match=r"ValueError: \\udcff x"):
            await submit(pool, "surrogate", b"").future
        assert set(pool._dispatcher.scheduler.workers) == {1}


@pytest.mark.asyncio
async def test_pool_out_of_descriptors_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessPoolExecutor(1) as pool:
        with monkeypatch.context() as broken:

            def no_more() -> None:
                raise OSError(24, "Too many open files")

            broken.setattr(socket, "socketpair", no_more)
            os.kill(workers_below(os.getpid())[0], signal.SIGKILL)
            await until(lambda: pool._dispatcher.scheduler.backoff.failures > 1)
            with pytest.raises(NoWorkers, match=r"could not be started: .*Too many open files"):
                await pool.run(jobs.pid)
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_pool_is_started_once_and_before_its_jobs() -> None:
    pool = ProcessPoolExecutor(1)
    with pytest.raises(RuntimeError, match="has not been started"):
        await pool.run(jobs.pid)
    async with pool:
        with pytest.raises(RuntimeError, match="started once"):
            await pool.start()
        await asyncio.gather(pool.aclose(None), pool.aclose(None))


@pytest.mark.asyncio
async def test_cancelled_aclose_still_ends_everything() -> None:
    pool = ProcessPoolExecutor(1)
    await pool.start()
    job = asyncio.create_task(pool.run(jobs.spin))
    await until(lambda: any(worker.job for worker in pool._dispatcher.scheduler.workers.values()))
    closing = asyncio.create_task(pool.aclose(3600))
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(PoolClosed):
        await job


def test_map_may_be_longer_than_the_queue() -> None:
    with ProcessPoolExecutor(1, queue_size=3) as pool:
        assert list(pool.map(jobs.echo, range(50))) == list(range(50))


# Stops


def called(pool: ProcessPoolExecutor, function: Callable[[], object], timeout: float | None = None) -> Job:
    lengths, pieces = pickle_pieces((function, (), {}))
    return pool.submit_job(Job(lengths, b"".join(pieces), timeout, kind=Call))


@pytest.mark.asyncio
async def test_stop_returns_when_the_process_is_dead_also_in_c_code() -> None:
    async with ProcessPoolExecutor(1) as pool:
        (worker,) = workers_below(os.getpid())
        job = called(pool, jobs.sleep_in_c)
        await until(lambda: bool(job.started))
        await pool.stop(job)
        assert worker not in workers_below(os.getpid())
        with pytest.raises(JobAbandoned):
            await job.future
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_stop_of_a_waiting_or_ended_job_returns_at_once() -> None:
    async with ProcessPoolExecutor(1) as pool:
        ended = called(pool, jobs.pid)
        await ended.future
        running, waiting = called(pool, jobs.spin), called(pool, jobs.pid)
        await pool.stop(ended)
        await pool.stop(waiting)
        with pytest.raises(JobAbandoned):
            await waiting.future
        assert not running.future.done()
        await pool.stop(running)
        await asyncio.gather(running.future, return_exceptions=True)


@pytest.mark.asyncio
async def test_stop_waits_for_the_death_that_a_deadline_has_begun() -> None:
    async with ProcessPoolExecutor(1) as pool:
        (worker,) = workers_below(os.getpid())
        job = called(pool, jobs.spin, 0.05)
        with pytest.raises(DeadlineExceeded):
            await job.future
        await pool.stop(job)
        assert worker not in workers_below(os.getpid())
