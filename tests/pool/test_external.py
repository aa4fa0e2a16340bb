"""external.py: the same jobs and the same faults in four other executors."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

import external_jobs
from pools import submit
from system import wait_until
from tinysvc import Service
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
from tinysvc.pool import external
from tinysvc.pool.arena import Arena
from tinysvc.pool.external import ExternalPool
from tinysvc.pool.frames import MessageTypes
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.state import Job
from tinysvc.testing import serving

# The executors, with two workers each, created and shut down as by their users


def standard() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


def threads() -> Executor:
    return ThreadPoolExecutor(2)


def loky() -> Executor:
    made: Executor = pytest.importorskip("loky", reason="loky is not installed").ProcessPoolExecutor(2, timeout=None)
    return made


@contextmanager
def dask() -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    dask = pytest.importorskip("dask")
    with (
        # Otherwise a job that kills its worker kills three more.
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


EXECUTORS: dict[str, Callable[[], AbstractContextManager[Executor]]] = {
    "processes": standard,
    "threads": threads,
    "loky": loky,
    "dask": dask,
}


@pytest.fixture(scope="module", autouse=True)
def helpers() -> Iterator[None]:
    """Start the helper processes of multiprocessing and loky before any test looks for processes."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    if find_spec("loky"):
        import_module("loky.backend.resource_tracker").ensure_running()  # nothing else ends it
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with EXECUTORS[request.param]() as made:
        yield made


@asynccontextmanager
async def pool_in(executor: Executor, folder: Path, **options: Any) -> AsyncIterator[ExternalPool]:
    """A started pool. It leaves nothing behind in the executor or in this process."""
    pool = ExternalPool(executor, external_jobs.Program(str(folder)), **options)
    await pool.start()
    try:
        yield pool
    finally:
        (folder / "go").touch()
        await until(lambda: not pool._queue.at_work)
        await pool.aclose(0)
        assert not pool.waiting
        assert pool._key not in external._opened
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def waiting(pool: ExternalPool, folder: Path, name: str, **options: Any) -> Job:
    """A job that runs until the file `go` exists."""
    job = submit(pool, ("wait", str(folder / name), str(folder / "go")), b"", **options)
    await until((folder / name).exists)
    return job


async def fill(pool: ExternalPool, folder: Path) -> list[Job]:
    return [await waiting(pool, folder, f"started-{number}") for number in range(2)]


async def assert_healthy(pool: ExternalPool) -> None:
    replies = await asyncio.gather(*(submit(pool, ("upper",), b"%d a" % n).future for n in range(3)))
    assert [reply.body for reply in replies] == [b"%d A" % n for n in range(3)]
    await until(lambda: not pool.zombies)  # a result may come before the executor reports the end of zombies
    assert pool.ready == 2


def noted(folder: Path, what: str) -> list[str]:
    path = folder / what
    return path.read_text().split() if path.exists() else []


# Results


@pytest.mark.asyncio
async def test_reply_is_as_from_a_worker_process(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        job = submit(pool, ("upper",), b"body")
        reply = await job.future
        assert reply.body == b"BODY"
        assert reply.meta[0] == "upper"
        assert type(reply.meta) is list  # MessagePack has no tuples
        assert (reply.meta[1] == os.getpid()) == isinstance(executor, ThreadPoolExecutor)
        assert job.queued == 0 < job.ran
        assert (await submit(pool, ("view",), b"abc").future).body == b"cba"
        assert await submit(pool, ("stream",), b"ab").future == JobReply("stream", b"ababab")
        assert pool.max_workers == 2
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_each_job_gets_its_own_result(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        replies = await asyncio.gather(*(submit(pool, ("upper",), b"a%d" % n).future for n in range(200)))
        assert [reply.body for reply in replies] == [b"A%d" % n for n in range(200)]


@pytest.mark.asyncio
async def test_arena_is_read_and_closed(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        arena = Arena()
        arena.write(b"x" * 1_000_000)
        reply = await submit(pool, ("upper",), arena).future
        assert reply.body == b"X" * 1_000_000
        assert arena.descriptor == -1


@pytest.mark.asyncio
async def test_equal_jobs_both_run(executor: Executor, tmp_path: Path) -> None:
    """Dask would take the second result from its cache."""
    async with pool_in(executor, tmp_path) as pool:
        first, second = await fill_alike(pool, tmp_path)
        (tmp_path / "go").touch()
        assert (await first.future).body == (await second.future).body == b""


async def fill_alike(pool: ExternalPool, folder: Path) -> tuple[Job, Job]:
    action = "wait", str(folder / "started"), str(folder / "go")
    first = submit(pool, action, b"")
    await until((folder / "started").exists)
    (folder / "started").unlink()
    second = submit(pool, action, b"")
    await until((folder / "started").exists)  # it really ran
    return first, second


# Errors

ERRORS = [
    ("ValueError", "ValueError", "no such value", "raise ValueError"),
    ("picky", "jobs.Picky", "picky", "raise Picky(1, 2)"),
    ("late failure", "jobs.Picky", "picky", "raise Picky(1, 2)"),
    ("bad str", "jobs.BadStr", "(its __str__ failed)", "raise BadStr"),
    ("SystemExit", "SystemExit", "7", "sys.exit(7)"),
    ("KeyboardInterrupt", "KeyboardInterrupt", "", "raise KeyboardInterrupt"),
    ("unencodable", "TypeError", "Encoding objects of type object is unsupported", "TypeError"),
    ("surrogate", "ValueError", r"\udcff x", "raise ValueError"),
    ("no such", "KeyError", "'no such'", "ACTIONS[action]"),
]


@pytest.mark.asyncio
async def test_exception_arrives_as_text_and_fails_its_job_only(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        for action, type_name, message, line in ERRORS:
            with pytest.raises(RemoteError) as caught:
                await submit(pool, (action,), b"").future
            assert caught.value.type_name == type_name, action
            assert caught.value.message == f"{type_name}: {message}"
            assert line in caught.value.traceback
        await assert_healthy(pool)
        with pytest.raises(TypeError, match="Encoding objects of type object"):
            submit(pool, object(), b"")


@pytest.mark.asyncio
async def test_failing_program_is_reported_at_start_up(executor: Executor) -> None:
    pool = ExternalPool(executor, external_jobs.failing_program)
    with pytest.raises(WorkerStartError, match="cannot start") as caught:
        await pool.start()
    assert "RuntimeError: the resource cannot be opened" in caught.value.traceback
    assert "external_jobs.py" in caught.value.traceback


class Typed(external_jobs.Program):
    message_types = MessageTypes(job=list[str], result=list[str])


@pytest.mark.asyncio
async def test_reply_of_another_form_fails_its_job(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        pool = ExternalPool(executor, Typed(str(tmp_path)))
        await pool.start()
        with pytest.raises(RemoteError, match="the worker's reply has the wrong form: Expected `str`, got `int`"):
            await submit(pool, ["upper"], b"a").future
        await pool.aclose()


# The queue, deadlines, lanes


@pytest.mark.asyncio
async def test_full_queue_refuses_at_once(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path, queue_size=1) as pool:
        running = await fill(pool, tmp_path)
        queued = submit(pool, ("upper",), b"a")
        with pytest.raises(QueueFull, match="1 jobs wait already") as caught:
            submit(pool, ("upper",), b"b")
        assert caught.value.retry_after >= 1
        assert pool.ready == 2  # busy workers are ready
        (tmp_path / "go").touch()
        assert (await queued.future).body == b"A"
        assert queued.queued > 0
        await asyncio.gather(*(job.future for job in running))
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_deadline_in_the_queue_drops_the_job(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        await fill(pool, tmp_path)
        late = submit(pool, ("upper",), b"", timeout=0.05)
        in_time = submit(pool, ("upper",), b"a", timeout=30)
        with pytest.raises(DeadlineInQueue, match=r"waited past its deadline of 0.05 s"):
            await late.future
        assert late.ran == 0.0 < late.queued
        (tmp_path / "go").touch()
        assert (await in_time.future).body == b"A"
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_running_job_past_its_deadline_is_a_zombie_with_a_slot(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        running = await fill(pool, tmp_path)
        for count, job in enumerate(running, 1):
            job.deadline, job.timeout = monotonic(), 0.25
            pool._alarm.set(job.deadline)
            with pytest.raises(DeadlineExceeded, match=r"ran past its deadline of 0.25 s"):
                await job.future
            assert pool.zombies == count
        assert pool.ready == 0  # zombies hold all workers
        queued = submit(pool, ("upper",), b"a")
        assert len(pool._queue.at_work) == 2
        (tmp_path / "go").touch()
        assert (await queued.future).body == b"A"
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_abandoned_queued_job_never_starts(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        await fill(pool, tmp_path)
        never = tmp_path / "never"
        job = submit(pool, ("wait", str(never), str(tmp_path / "go")), b"")
        pool.abandon(job, even_running=False)
        with pytest.raises(JobAbandoned, match="before it started"):
            await job.future
        assert not pool.waiting
        (tmp_path / "go").touch()
        await assert_healthy(pool)
        assert not never.exists()


@pytest.mark.asyncio
async def test_abandoned_running_job_runs_on(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        kept, left = await fill(pool, tmp_path)
        pool.abandon(kept, even_running=False)
        pool.abandon(left, even_running=True)
        with pytest.raises(JobAbandoned, match="may run on"):
            await left.future
        assert pool.zombies == 1
        assert pool.ready == 2
        (tmp_path / "go").touch()
        assert (await kept.future).body == b""
        await assert_healthy(pool)


@pytest.mark.asyncio
async def test_lane_leaves_workers_for_other_jobs(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        lane = pool.lane(1)
        first = await waiting(pool, tmp_path, "first", lane=lane)
        second = submit(pool, ("upper",), b"second", lane=lane)
        assert (await submit(pool, ("upper",), b"other").future).body == b"OTHER"
        assert not second.future.done()
        (tmp_path / "go").touch()
        await asyncio.gather(first.future, second.future)
        assert lane.running == 0


@pytest.mark.asyncio
async def test_waiting_job_comes_before_a_new_one_when_the_executor_has_grown(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        async with pool_in(executor, tmp_path) as pool:
            await waiting(pool, tmp_path, "first")
            second = submit(pool, ("upper",), b"second")
            executor._max_workers = 2
            third = submit(pool, ("upper",), b"third")
            assert second.slot is not None
            assert third.slot is None
            (tmp_path / "go").touch()
            await asyncio.gather(second.future, third.future)


@pytest.mark.asyncio
async def test_each_slot_becomes_free_again(tmp_path: Path) -> None:
    allowed = (DeadlineExceeded, DeadlineInQueue, JobAbandoned)
    chance = random.Random(1)
    with ThreadPoolExecutor(2) as executor:
        async with pool_in(executor, tmp_path) as pool:
            lanes = [None, pool.lane(1)]
            sent = [
                (submit(pool, ("upper",), b"a%d" % n, chance.choice([None, 0, 0.001]), chance.choice(lanes)), n)
                for n in range(300)
            ]
            for job, _ in chance.sample(sent, 100):
                pool.abandon(job, even_running=chance.random() < 0.5)
                await asyncio.sleep(0)
            outcomes = await asyncio.gather(*(job.future for job, _ in sent), return_exceptions=True)
            for (_, n), outcome in zip(sent, outcomes, strict=True):
                assert isinstance(outcome, allowed) or outcome.body == b"A%d" % n  # type: ignore[union-attr]
            await until(lambda: not pool._queue.at_work)
            assert {lane.running for lane in pool._queue.lanes} == {0}
            await assert_healthy(pool)


# Resources and aclose


@pytest.mark.asyncio
async def test_program_is_opened_once_per_process(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        replies = await asyncio.gather(*(submit(pool, ("upper",), b"").future for n in range(100)))
        opened = noted(tmp_path, "own-opened")
        assert {str(reply.meta[1]) for reply in replies} <= set(opened)
        assert len(opened) == len(set(opened))
        assert sorted(noted(tmp_path, "shared-opened")) == sorted(opened)
    if isinstance(executor, ThreadPoolExecutor):
        assert noted(tmp_path, "own-closed") == noted(tmp_path, "shared-closed") == [str(os.getpid())]
    elif hasattr(executor, "_client"):
        assert sorted(noted(tmp_path, "own-closed")) == sorted(opened)
    assert executor.submit(os.getpid).result()  # the executor is still usable


@pytest.mark.asyncio
async def test_aclose_drops_waiting_jobs_and_leaves_running_ones(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        running = await fill(pool, tmp_path)
        queued = submit(pool, ("upper",), b"")
        await pool.aclose(0.01)
        for job in [*running, queued]:
            with pytest.raises(PoolClosed):
                await job.future
        with pytest.raises(PoolClosed):
            submit(pool, ("upper",), b"")
        assert pool.zombies == 2


@pytest.mark.asyncio
async def test_aclose_waits_for_jobs(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        running = await fill(pool, tmp_path)
        queued = submit(pool, ("upper",), b"a")
        closing = asyncio.create_task(pool.aclose(None))
        await asyncio.sleep(0)
        assert not closing.done()
        (tmp_path / "go").touch()
        await closing
        assert [(await job.future).body for job in [*running, queued]] == [b"", b"", b"A"]


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", EXECUTORS)
async def test_resources_close_with_the_executor(kind: str, tmp_path: Path) -> None:
    with EXECUTORS[kind]() as executor:
        async with pool_in(executor, tmp_path) as pool:
            await assert_healthy(pool)
    opened = noted(tmp_path, "own-opened")
    assert opened
    for what in ("own-closed", "shared-closed"):
        wait_until(lambda what=what: sorted(noted(tmp_path, what)) == sorted(opened), f"{what} in each process")


# Broken executors. Without `nothing_left`, as loky keeps one semaphore of each until our process ends


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["processes", "loky", "dask"])
async def test_crash_is_worker_died(kind: str, tmp_path: Path) -> None:
    with EXECUTORS[kind]() as executor:
        async with pool_in(executor, tmp_path) as pool:
            with pytest.raises(WorkerDied, match=r"the executor has lost the job: (BrokenProc|Terminated|KilledW)"):
                await submit(pool, ("segfault",), b"").future
            if kind == "dask":  # its nanny starts a new worker
                await until_healthy(pool)
            else:
                assert pool.ready == 0
                with pytest.raises(NoWorkers, match="the executor takes no jobs: "):
                    submit(pool, ("upper",), b"")


async def until_healthy(pool: ExternalPool) -> None:
    async with asyncio.timeout(30):
        while pool._cluster_size != 2:
            await asyncio.sleep(0.01)
    await assert_healthy(pool)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["processes", "loky"])
async def test_one_crash_breaks_the_other_jobs(kind: str, tmp_path: Path) -> None:
    with EXECUTORS[kind]() as executor:
        async with pool_in(executor, tmp_path) as pool:
            beside = await waiting(pool, tmp_path, "started")
            crashing = submit(pool, ("segfault",), b"")
            queued = submit(pool, ("upper",), b"")
            for job, error in ((crashing, WorkerDied), (beside, WorkerDied), (queued, NoWorkers)):
                with pytest.raises(error):
                    await job.future
            assert pool.ready == 0


@pytest.mark.asyncio
async def test_executor_after_shutdown_refuses_jobs(tmp_path: Path) -> None:
    with threads() as executor:
        async with pool_in(executor, tmp_path) as pool:
            await assert_healthy(pool)
            executor.shutdown()
            with pytest.raises(NoWorkers, match="cannot schedule new futures after shutdown"):
                submit(pool, ("upper",), b"")
            assert pool.ready == 0
        with pytest.raises(WorkerStartError, match="cannot run a job"):
            await ExternalPool(executor, external_jobs.Program(str(tmp_path))).start()


@pytest.mark.asyncio
async def test_job_that_the_executor_has_not_started_is_cancelled(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        async with pool_in(executor, tmp_path) as pool:
            theirs = executor.submit(wait_until, (tmp_path / "go").exists, "the test says so")
            job = submit(pool, ("upper",), b"", timeout=0.05)
            with pytest.raises(DeadlineInQueue):
                await job.future
            await until(lambda: not pool._queue.at_work)
            assert not theirs.done()


# The warning at start-up

LIMITATIONS_OF_ALL = [
    "running jobs cannot be stopped",
    "streams are collected before they are sent",
    "shared resources are opened per process",
    "max_jobs, max_memory and memory_limit are not applied",
]


@pytest.mark.asyncio
async def test_one_warning_lists_the_limitations(
    executor: Executor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tinysvc.executor"):
        async with pool_in(executor, tmp_path, name="one"):
            pass
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith(f"the pool 'one' runs in a {type(executor).__name__}: ")
    assert all(limitation in text for limitation in LIMITATIONS_OF_ALL)
    in_threads = isinstance(executor, ThreadPoolExecutor)
    assert ("thread-safe" in text) == in_threads
    assert ("allowed-failures" in text) == hasattr(executor, "_client")
    assert "forks" not in text


@pytest.mark.asyncio
async def test_forks_of_the_server_cause_a_warning() -> None:
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    assert (
        'mp_context=get_context("forkserver")' in ExternalPool(executor, external_jobs.failing_program)._limitations()
    )
    executor.shutdown()


# A service in another executor


@pytest.fixture(scope="module")
def client(executor: Executor) -> Iterator[httpx.Client]:
    with (
        serving(Service(external_jobs, pools={"default": executor}), raise_errors=False) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def test_service_runs_in_another_executor(client: httpx.Client) -> None:
    assert client.post("/sum", json=[1, 10]).json() == {"sum": 32}
    assert client.post("/sum", json=[1, "x"]).status_code == 422
    assert client.get("/lookup/key").json() == {"value": "value"}
    missing = client.get("/lookup/none")
    assert (missing.status_code, missing.json()["detail"], missing.headers["x-method"]) == (404, "no none", "GET")
    assert client.get("/count/12").text == "01234567891011"
    assert client.get("/readyz").json()["pools"] == {"default": {"workers": 2, "ready": 2, "queued": 0}}


def test_failure_is_logged_with_its_remote_traceback(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get("/fail")
    assert (response.status_code, "no such value" in response.text) == (500, False)
    assert "ValueError: no such value" in caplog.text
    assert "raise_value_error" in caplog.text


def test_deadline_gets_504_while_the_job_runs_on(client: httpx.Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with ThreadPoolExecutor(2) as clients:
        answers = list(clients.map(lambda _: client.get("/wait", params={"go": str(go)}), range(2)))
    assert [answer.status_code for answer in answers] == [504, 504]
    assert client.get("/readyz").status_code == 503
    go.touch()
    wait_until(lambda: client.get("/readyz").status_code == 200, "the zombies have ended")
    assert client.get("/lookup/key").status_code == 200


@pytest.mark.asyncio
async def test_stop_waits_for_the_end_of_what_it_cannot_stop(executor: Executor, tmp_path: Path) -> None:
    async with pool_in(executor, tmp_path) as pool:
        jobs = await fill(pool, tmp_path)
        queued = submit(pool, ("upper",), b"a")
        await pool.stop(queued)
        stopping = asyncio.create_task(pool.stop(jobs[0]))
        with pytest.raises(JobAbandoned):
            await jobs[0].future
        assert not stopping.done()
        (tmp_path / "go").touch()
        await stopping
        outcomes = await asyncio.gather(jobs[1].future, queued.future, return_exceptions=True)
        assert (type(outcomes[0]), type(outcomes[1])) == (JobReply, JobAbandoned)
