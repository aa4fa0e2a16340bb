"""Any concurrent.futures.Executor in the pool's place: the standard pools, loky, or Dask's on a whole cluster.

    submit_frame ──> queue ──────────> executor.submit ──> _answer, in some process ──> reply or failure, as plain data
                     (FIFO, bounded)   (one a worker)      (the program, opened once)

The theory: all an executor can do with a job, once it has it, is finish it. So it is given a job only when it has a
worker for it. Who waits, waits here, where deadlines, lanes and clients that leave are as exact as in our own pool.

    job     queued ──> running ──> done       for who waits for it; `done` is entered once
    place                └──────────────> free   when the executor says that the job is over, and not before

A job that is done but not over is a *zombie*: nobody waits for it, nothing can stop it, and it holds its place.

`_answer` answers whatever a handler does. So an exception that an executor reports is its own: a worker has died.

The executor belongs to whoever made it and is never shut down here. What the program has opened is closed with the
pool where that is in our reach (threads of this process, a Dask cluster), else when its process ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import uuid
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from multiprocessing.util import Finalize
from time import monotonic
from typing import Any, NamedTuple

from ..core.cores import available_cores
from ..core.errors import (
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
from ..core.settings import DEFAULT_QUEUE_SIZE
from ..core.tracebacks import author_traceback
from .arena import Arena, Arenas
from .dispatcher import Alarm, JobReply
from .scheduler import START_LIMIT, Job, JobState, Lane
from .worker import Handle, Program, decode, encode, error_text

log = logging.getLogger("tinysvc.executor")

CLUSTER_PAUSE = 2.0
"""Seconds between two looks at the size of a Dask cluster, as often as Dask's own clients look."""


class ForeignPool:
    """Stands where a ProcessPoolExecutor of ours stands, and runs `program` in `executor`.

    *Threads.* In a pool of threads, and in Dask workers with several, handlers are called from several threads at the
    same time with the same resources: both must be thread-safe.

    *Processes.* Each one imports the handlers by the names of their modules, and opens the resources once. So a module
    with handlers must not itself make the executor, or each of its workers would make another one.
    """

    def __init__(
        self, executor: Executor, program: Program, *, name: str = "default", queue_size: int = DEFAULT_QUEUE_SIZE
    ) -> None:
        self.name = name
        self.warnings: list[str] = []
        self.queue_size = queue_size
        self._executor = executor
        self._program = program
        self._key = uuid.uuid4().hex  # what this pool has opened in other processes
        self._client = _dask_client(executor)
        self._options = {"pure": False} if self._client else {}  # else Dask answers the same question from memory
        self._cluster_size = 0
        self._cluster_watch: asyncio.Task[None] | None = None
        self._queue: OrderedDict[int, Job] = OrderedDict()
        self._handed: dict[int, tuple[Job, Future[Outcome]]] = {}
        self._open_lane = Lane()
        self._jobs_made = 0
        self._mean_run = 0.0  # seconds; a moving average
        self._refusal = ""  # why the executor took or lost a job the last time
        self._alarm = Alarm(self._on_alarm, self._put_off)
        self._closing = False
        self.arenas = Arenas()
        self._loop: asyncio.AbstractEventLoop

    # Life

    async def start(self) -> None:
        """Say what this executor cannot do, and have its workers open the program. WorkerStartError if one cannot."""
        self._loop = asyncio.get_running_loop()
        log.warning("the pool %r runs in a %s: %s", self.name, type(self._executor).__name__, self._weaknesses())
        try:
            if self._client is not None:
                await self._look_at_cluster()
                self._cluster_watch = self._loop.create_task(self._watch_cluster())
            await asyncio.gather(*(self._open_one() for _ in range(self.max_workers)))
        except BaseException:
            await self.aclose(0)
            raise

    async def _open_one(self) -> None:
        try:
            opened = await asyncio.wait_for(asyncio.wrap_future(self._submit(None, b"")), START_LIMIT)
        except Exception as error:
            raise WorkerStartError(f"the executor of the pool {self.name!r} cannot run a job", _named(error)) from error
        if isinstance(opened, _Failure):
            raise WorkerStartError(f"a worker of the pool {self.name!r} cannot start", opened.traceback)

    def _weaknesses(self) -> str:
        in_threads = isinstance(self._executor, ThreadPoolExecutor)
        context = getattr(self._executor, "_mp_context", None)
        said = ["running jobs cannot be stopped, at their deadline or when the client leaves, and hold their worker"]
        if in_threads:
            said.append("a crash ends the server")
            said.append("handlers and resources must be thread-safe, and what computes holds the event loop back")
        elif self._client is not None:
            said.append("Dask starts a job whose worker died again, as often as distributed.scheduler.allowed-failures")
        else:
            said.append("one crash may break the pool")
        if context is not None and context.get_start_method() == "fork":
            said.append('its workers are forks of the running server; give it mp_context=get_context("forkserver")')
        said.append("streams are collected before they are sent")
        said.append("shared resources are opened per process")
        if not in_threads:
            said.append("what workers log and print stays with them")
        said.append("max_jobs, max_memory and memory_limit are not applied")
        return "; ".join(said)

    async def aclose(self, timeout: float | None = 10.0) -> None:
        """Take no new jobs and let those there are finish for `timeout` seconds (None: no end). Zombies run on."""
        self._closing = True
        try:
            if waited_for := [job.future for job in self._jobs() if job.state is not JobState.DONE]:
                await asyncio.wait(waited_for, timeout=timeout)
        finally:
            for job in self._jobs():
                self._withdraw(job)
                self._settle(job, PoolClosed("the pool was shut down before the job ended"))
            self._alarm.cancel()
            if self._cluster_watch is not None:
                self._cluster_watch.cancel()
            await self._close_programs()

    async def _close_programs(self) -> None:
        if any(not handed.done() for _, handed in self._handed.values()):
            return  # a zombie may still use what is open
        close = partial(self._client.run, _close, on_error="ignore") if self._client is not None else _close
        try:
            await asyncio.to_thread(close, self._key)
        except Exception as error:  # of a resource, or of a cluster that has gone
            log.error("the pool %r could not close its resources:\n%s", self.name, author_traceback(error))

    @property
    def max_workers(self) -> int:
        """The places of the executor as it is now: some grow and shrink."""
        if self._client is not None:
            return max(1, self._cluster_size)
        return getattr(self._executor, "_max_workers", None) or available_cores()

    @property
    def zombies(self) -> int:
        """How many jobs run on although nobody waits for them."""
        return sum(job.state is JobState.DONE for job, _ in self._handed.values())

    @property
    def ready(self) -> int:
        """All workers, busy ones too; 0 if the executor refuses jobs, has no workers, or all of them hold zombies."""
        if self._refusal or self.zombies >= self.max_workers or (self._client is not None and not self._cluster_size):
            return 0
        return self.max_workers

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return len(self._queue)

    async def _watch_cluster(self) -> None:
        while True:
            await asyncio.sleep(CLUSTER_PAUSE)
            await self._look_at_cluster()
            self._hand_out()

    async def _look_at_cluster(self) -> None:
        assert self._client is not None
        try:
            self._cluster_size = sum((await asyncio.to_thread(self._client.nthreads)).values())
        except Exception as error:
            if self._cluster_size:
                log.error("the pool %r has lost its cluster: %s", self.name, _named(error))
            self._cluster_size = 0

    # Jobs come

    def lane(self, limit: int) -> Lane:
        """Jobs given this lane hold at most `limit` workers at a time."""
        return Lane(limit)

    def submit_frame(
        self,
        meta: Any,
        body: bytes | Arena,
        timeout: float | None = None,
        lane: Lane | None = None,
        key: Hashable = None,
    ) -> Job:
        """As our own pool has it. `key` is not used: which job it was that broke an executor, nobody tells."""
        payload = encode(meta), _whole(body)
        if self._closing:
            raise PoolClosed("the pool is shutting down")
        self._jobs_made += 1
        job = Job(self._jobs_made, lane or self._open_lane, timeout, monotonic())
        job.frame, job.body = payload
        job.future = self._loop.create_future()
        if self._has_place_for(job):
            self._hand(job)
        elif len(self._queue) >= self.queue_size:
            raise QueueFull(f"{len(self._queue)} jobs wait already; try again later", self._retry_after())
        else:
            self._queue[job.number] = job
        if job.deadline < math.inf:
            self._alarm.set(job.deadline)
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """Nobody waits for `job` any more: take it from the queue; one that runs is a zombie from now on if told so."""
        if job.state is JobState.QUEUED:
            self._settle(job, JobAbandoned("nobody waits for the job any more; it was not started"))
        elif job.state is JobState.RUNNING and even_running:
            self._withdraw(job)
            self._settle(job, JobAbandoned("nobody waits for the job any more; it may run on"))

    def _jobs(self) -> list[Job]:
        return [*self._queue.values(), *(job for job, _ in self._handed.values())]

    def _retry_after(self) -> int:
        return max(1, math.ceil((len(self._queue) + 1) * self._mean_run / self.max_workers))

    # Jobs go

    def _has_place_for(self, job: Job) -> bool:
        return len(self._handed) < self.max_workers and job.lane.running < job.lane.limit

    def _hand_out(self) -> None:
        """Give the free workers the eldest jobs whose lane has room."""
        while job := next(filter(self._has_place_for, self._queue.values()), None):
            try:
                self._hand(job)
            except NoWorkers as error:
                self._settle(job, error)

    def _hand(self, job: Job) -> None:
        """Give the executor the job; NoWorkers if it refuses."""
        try:
            handed = self._submit_job(job)
        except Exception as error:  # it is broken or shut down, or cannot start another worker
            self._refusal = f"the executor takes no jobs: {_named(error)}"
            raise NoWorkers(self._refusal) from error
        self._refusal = ""
        self._queue.pop(job.number, None)
        self._handed[job.number] = job, handed
        job.state, job.started = JobState.RUNNING, monotonic()
        job.lane.running += 1
        handed.add_done_callback(partial(self._tell_over, job))

    def _submit_job(self, job: Job) -> Future[Any]:
        return self._submit(job.frame, job.body)

    def _submit(self, meta: bytes | None, body: bytes) -> Future[Outcome]:
        # The program itself, not its pickle: loky and Dask know how to send functions of `__main__`.
        return self._executor.submit(_answer, self._key, self._program, meta, body, **self._options)

    def _tell_over(self, job: Job, handed: Future[Outcome]) -> None:
        """Called in any thread."""
        try:
            self._loop.call_soon_threadsafe(self._over, job, handed)
        except RuntimeError:
            pass  # a zombie has outlived the loop

    def _over(self, job: Job, handed: Future[Outcome]) -> None:
        """The executor is done with the job: its place is free."""
        del self._handed[job.number]
        job.lane.running -= 1
        ran = monotonic() - job.started
        self._mean_run += (ran - self._mean_run) / 10 if self._mean_run else ran
        self._settle(job, self._outcome(handed))
        self._hand_out()

    def _outcome(self, handed: Future[Outcome]) -> JobReply | Exception:
        if handed.cancelled():
            return WorkerDied("the executor has dropped the job")
        error = handed.exception()
        if error is None:
            self._refusal, result = "", handed.result()
            return RemoteError(*result) if isinstance(result, _Failure) else JobReply(decode(result[0]), result[1])
        if isinstance(error, BrokenExecutor):
            self._refusal = f"the executor is broken: {_named(error)}"
        return WorkerDied(f"the executor has lost the job: {_named(error)}")

    def _settle(self, job: Job, outcome: JobReply | Exception) -> None:
        """Tell who waits for the job, once. Its place, if it has one, stays its own until it is over."""
        if job.state is JobState.DONE:
            return
        self._queue.pop(job.number, None)
        job.state = JobState.DONE
        job.settle(monotonic())
        if job.future.done():
            return
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

    def _withdraw(self, job: Job) -> bool:
        """Take back a job that the executor has not begun, as when it works for others too."""
        if job.number not in self._handed or self._client is not None:  # Dask says yes also to what runs
            return False
        return self._handed[job.number][1].cancel()

    # Deadlines

    def _put_off(self, seconds: float) -> None:
        for job in self._jobs():
            job.deadline += seconds

    def _on_alarm(self) -> None:
        """The earliest deadline has come, if its job is still there: end what is late and set the next alarm."""
        now = monotonic()
        waited_for = [job for job in self._jobs() if job.state is not JobState.DONE]
        for job in waited_for:
            if job.deadline <= now:
                self._expire(job)
        self._alarm.set(min((job.deadline for job in waited_for if job.deadline > now), default=math.inf))

    def _expire(self, job: Job) -> None:
        deadline = f"past its deadline of {job.timeout:g} s"
        if job.state is JobState.QUEUED or self._withdraw(job):
            self._settle(job, DeadlineInQueue(f"the job waited {deadline}", self._retry_after()))
        else:
            self._settle(job, DeadlineExceeded(f"the job ran {deadline}; it runs on, as nothing can stop it"))


def _dask_client(executor: Executor) -> Any:
    """The client behind Dask's `client.get_executor()`; None for all others."""
    client = getattr(executor, "_client", None)
    return client if hasattr(client, "nthreads") else None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _whole(body: Any) -> bytes:
    """The bytes of a body of any kind: an arena (closed here), a buffer, or an iterator, which is read to its end."""
    if isinstance(body, Arena):
        try:
            return bytes(body.view())
        finally:
            body.close()
    return b"".join(body) if isinstance(body, Iterator) else bytes(body)


# In the other process, or thread


class _Failure(NamedTuple):
    """An error as text, so that nothing of it has to be unpickled."""

    type_name: str
    message: str
    traceback: str


Outcome = tuple[bytes, bytes] | _Failure

_opened: dict[str, tuple[Handle, Finalize]] = {}
_opening = threading.Lock()


def _answer(key: str, program: Program, meta: bytes | None, body: bytes) -> Outcome:
    """One job, answered whatever it does. Without a `meta` it only opens the program."""
    try:
        handle = _open(key, program)
        if meta is None:
            return b"", b""
        return copy_context().run(_handled, handle, meta, body)  # so the next job does not see its variables
    except BaseException as error:  # SystemExit too: the process is not the handler's to end
        return _Failure(*error_text(error))


def _handled(handle: Handle, meta: bytes, body: bytes) -> tuple[bytes, bytes]:
    reply = handle(decode(meta), body)
    return encode(reply.meta), _whole(reply.body)


def _open(key: str, program: Program) -> Handle:
    if key not in _opened:
        with _opening:
            if key not in _opened:
                _opened[key] = _enter(program)
    return _opened[key][0]


def _enter(program: Program) -> tuple[Handle, Finalize]:
    """Open the program for the life of this process, or until it is closed."""
    with ExitStack() as stack:
        if preload := getattr(program, "preload", None):
            stack.enter_context(preload())
        handle = stack.enter_context(program())
        close = stack.pop_all().close
    return handle, Finalize(None, close, exitpriority=1)  # not atexit: multiprocessing's forks leave without it


def _close(key: str) -> None:
    if key in _opened:
        _, close = _opened.pop(key)
        close()
