"""observer.py: the cause of each end of a worker, and what a pool reports."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import jobs
from system import until
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import DeadlineExceeded, QueueFull, WorkerDied
from tinysvc.pool.external import ExternalPool
from tinysvc.pool.frames import WorkerEnd
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.observer import CAUSES, PoolObserver, cause_of
from tinysvc.pool.scheduler import KEPT_RUNNING, PAST_DEADLINE
from tinysvc.pool.state import BUSY, EXITING, IDLE, STARTING, Generation, Job, SlotState, Worker


def worker(state: SlotState = BUSY, kill_reason: str = "", *, started: bool = True) -> Worker:
    made = Worker(1, 0.0, Generation())
    made.state, made.kill_reason, made.started = state, kill_reason, started
    return made


@pytest.mark.parametrize(
    ("ended", "exit_code", "out_of_memory", "cause"),
    [
        (worker(kill_reason=PAST_DEADLINE), -9, False, "deadline"),
        (worker(kill_reason="ran an abandoned job"), -9, False, "abandoned"),
        (worker(kill_reason="ran out of memory"), -9, False, "memory_error"),
        (worker(kill_reason=KEPT_RUNNING), -9, False, "exited"),
        (worker(kill_reason="lost its forkserver"), -9, False, "forkserver_lost"),
        (worker(kill_reason="sent a Chunk for job 3"), -9, False, "protocol_error"),
        (worker(EXITING, "took longer than 2 s to close its resources"), -9, False, "stuck_at_exit"),
        (worker(STARTING, "was not ready within 60 s", started=False), -9, False, "start_failed"),
        (worker(STARTING, started=False), 1, False, "start_failed"),
        (worker(EXITING), 0, False, "replaced"),
        (worker(BUSY), -signal.SIGKILL, True, "out_of_memory"),
        (worker(IDLE), -signal.SIGKILL, False, "killed"),
        (worker(BUSY), -signal.SIGKILL, None, "killed"),
        (worker(BUSY), -signal.SIGSEGV, False, "crashed"),
        (worker(BUSY), 3, False, "exited"),
        (worker(IDLE), None, None, "shutdown"),
    ],
)
def test_cause_of_an_end(ended: Worker, exit_code: int | None, out_of_memory: bool | None, cause: str) -> None:
    end = WorkerEnd(1, exit_code, out_of_memory=out_of_memory)
    assert cause_of(ended, end, is_closing=False) == cause
    assert cause in CAUSES


def test_worker_that_exits_with_its_pool_has_ended_by_the_shutdown() -> None:
    assert cause_of(worker(EXITING), WorkerEnd(1, 0), is_closing=True) == "shutdown"


@pytest.mark.asyncio
async def test_pool_reports_each_job_and_each_worker() -> None:
    ends: list[object] = []
    refusals: list[Exception] = []
    causes: list[tuple[str, str]] = []
    async with ProcessPoolExecutor(1, queue_size=0, label="churn@7") as pool:
        assert pool.observer is None
        pool.observer = PoolObserver(
            lambda job, outcome: ends.append(outcome),
            refusals.append,
            lambda label, cause: causes.append((label, cause)),
        )
        assert await pool.run(jobs.add, 2, 3) == 5
        with pytest.raises(WorkerDied):
            await pool.run(jobs.exit_now, 3)
        await until(lambda: pool.ready == 1)
        late = asyncio.create_task(pool.run(jobs.spin, timeout=0.3))
        await until(lambda: pool.worker_states()["busy"] == 1)
        with pytest.raises(QueueFull):
            await pool.run(jobs.add, 2, 3)
        with pytest.raises(DeadlineExceeded):
            await late
        await until(lambda: pool.worker_states() == {"starting": 0, "idle": 1, "busy": 0, "exiting": 0, "dying": 0})
    assert [type(outcome) for outcome in ends] == [JobReply, WorkerDied, DeadlineExceeded]
    assert [type(error) for error in refusals] == [QueueFull]
    assert causes == [("churn@7", cause) for cause in ("exited", "deadline", "shutdown")]


@pytest.mark.asyncio
async def test_pool_of_an_executor_reports_its_jobs() -> None:
    ends: list[object] = []
    refusals: list[Exception] = []
    with ThreadPoolExecutor(1) as executor:
        pool = ExternalPool(executor, jobs.upper_program, queue_size=0)
        pool.observer = PoolObserver(
            lambda job, outcome: ends.append(outcome), refusals.append, lambda label, cause: None
        )
        await pool.start()
        first = pool.submit_job(Job(None, b"text"))
        assert pool.worker_states() == {"idle": 0, "busy": 1}
        with pytest.raises(QueueFull):
            pool.submit_job(Job(None, b"text"))
        await first.future
        assert pool.worker_states() == {"idle": 1, "busy": 0}
        await pool.aclose()
    assert [type(outcome) for outcome in ends] == [JobReply]
    assert [type(error) for error in refusals] == [QueueFull]
