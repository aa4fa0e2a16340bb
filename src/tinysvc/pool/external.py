"""A pool over any concurrent.futures.Executor: the standard pools, loky, or Dask's client of a cluster.

    submit_frame ──> queue ──────────> executor.submit ──> _run_job, in some process ──> reply or failure, as bytes
                     (FIFO, bounded)   (one a worker)      (the program, opened once)

An executor cannot stop a job that it has started. So it gets a job only when it has a free worker. All other jobs wait
here, where deadlines, lanes and disconnects work exactly as in our own pool.

    job     queued ──> running ──> done          for its caller; `done` is entered once
    slot                 └──────────────> free   when the executor reports the end of the job, and not before

A *zombie* is a job that is done for its caller, but still runs: it cannot be stopped, and it holds its slot.

`_run_job` returns a reply or a failure, whatever a handler does. So an exception that an executor reports is its own: a
worker has died.

The executor belongs to the code that made it, and is never shut down here. Resources of the program are closed with the
pool if they are within reach (threads of this process, a Dask cluster), else when their process ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from multiprocessing.util import Finalize
from time import monotonic
from typing import Any

from msgspec import DecodeError
from msgspec.msgpack import Decoder

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
from .alarm import Alarm
from .arena import Arena, Arenas
from .frames import ErrorText, encode, message_types
from .job_reply import JobReply
from .program import JobFunction, Program
from .remote_errors import error_text
from .state import START_LIMIT, Job, JobState, Lane

log = logging.getLogger("tinysvc.executor")

CLUSTER_PAUSE = 2.0
"""Seconds between two queries of the size of a Dask cluster, as in Dask's own clients."""


class ExternalPool:
    """Has the interface of our ProcessPoolExecutor, and runs `program` in `executor`.

    *Threads.* A pool of threads, and a Dask worker with several threads, calls handlers from several threads at the
    same time, with the same resources: both must be thread-safe.

    *Processes.* Each process imports the handlers by the names of their modules, and opens the resources once. So a
    module with handlers must not create the executor: each worker would create another one.
    """

    def __init__(
        self, executor: Executor, program: Program, *, name: str = "default", queue_size: int = DEFAULT_QUEUE_SIZE
    ) -> None:
        self.name = name
        self.warnings: list[str] = []
        self.queue_size = queue_size
        self._executor = executor
        self._program = program
        self._decode_meta = Decoder(message_types(program).result).decode
        self._key = uuid.uuid4().hex  # of the programs that this pool has opened in other processes
        self._client = _dask_client(executor)
        self._options = {"pure": False} if self._client else {}  # else Dask caches the results of equal calls
        self._cluster_size = 0
        self._cluster_watch: asyncio.Task[None] | None = None
        self._queue: OrderedDict[int, Job] = OrderedDict()
        self._running: dict[int, tuple[Job, Future[Outcome]]] = {}
        self._open_lane = Lane()
        self._jobs_made = 0
        self._mean_run = 0.0  # seconds; a moving average
        self._refusal = ""  # why the executor last refused or lost a job; "" if it works
        self._alarm = Alarm(self._on_alarm, self._postpone)
        self._closing = False
        self.arenas = Arenas()
        self._loop: asyncio.AbstractEventLoop

    # Start and end

    async def start(self) -> None:
        """Log the limitations of the executor, and let its workers open the program. WorkerStartError if that fails."""
        self._loop = asyncio.get_running_loop()
        log.warning("the pool %r runs in a %s: %s", self.name, type(self._executor).__name__, self._limitations())
        try:
            if self._client is not None:
                await self._update_cluster_size()
                self._cluster_watch = self._loop.create_task(self._watch_cluster())
            await asyncio.gather(*(self._open_one() for _ in range(self.max_workers)))
        except BaseException:
            await self.aclose(0)
            raise

    async def _open_one(self) -> None:
        try:
            opened = await asyncio.wait_for(asyncio.wrap_future(self._submit(None, b"")), START_LIMIT)
        except Exception as error:
            message = f"the executor of the pool {self.name!r} cannot run a job"
            raise WorkerStartError(message, _describe(error)) from error
        if isinstance(opened, ErrorText):
            raise WorkerStartError(f"a worker of the pool {self.name!r} cannot start", opened.traceback)

    def _limitations(self) -> str:
        in_threads = isinstance(self._executor, ThreadPoolExecutor)
        context = getattr(self._executor, "_mp_context", None)
        texts = ["running jobs cannot be stopped, at their deadline or at a disconnect, and hold their worker"]
        if in_threads:
            texts.append("a crash ends the server")
            texts.append("handlers and resources must be thread-safe, and computations slow down the event loop")
        elif self._client is not None:
            texts.append("Dask repeats a job whose worker died, up to distributed.scheduler.allowed-failures times")
        else:
            texts.append("one crash may break the pool")
        if context is not None and context.get_start_method() == "fork":
            texts.append('its workers are forks of the running server; give it mp_context=get_context("forkserver")')
        texts.append("streams are collected before they are sent")
        texts.append("shared resources are opened per process")
        if not in_threads:
            texts.append("log records and prints of workers do not reach the server")
        texts.append("max_jobs, max_memory and memory_limit are not applied")
        return "; ".join(texts)

    async def aclose(self, timeout: float | None = 10.0) -> None:
        """Admit no more jobs, let the present ones finish within `timeout` seconds (None: no limit). Zombies run on."""
        self._closing = True
        try:
            if unsettled := [job.future for job in self._jobs() if job.state is not JobState.DONE]:
                await asyncio.wait(unsettled, timeout=timeout)
        finally:
            for job in self._jobs():
                self._withdraw(job)
                self._settle(job, PoolClosed("the pool was shut down before the job ended"))
            self._alarm.cancel()
            if self._cluster_watch is not None:
                self._cluster_watch.cancel()
            await self._close_programs()

    async def _close_programs(self) -> None:
        if any(not future.done() for _, future in self._running.values()):
            return  # a zombie may still use the resources
        close = partial(self._client.run, _close, on_error="ignore") if self._client is not None else _close
        try:
            await asyncio.to_thread(close, self._key)
        except Exception as error:  # of a resource, or of a lost cluster
            log.error("the pool %r could not close its resources:\n%s", self.name, author_traceback(error))

    @property
    def max_workers(self) -> int:
        """The present number of workers: some executors grow and shrink."""
        if self._client is not None:
            return max(1, self._cluster_size)
        return getattr(self._executor, "_max_workers", None) or available_cores()

    @property
    def zombies(self) -> int:
        """Jobs that are done for their callers and still run."""
        return sum(job.state is JobState.DONE for job, _ in self._running.values())

    @property
    def ready(self) -> int:
        """All workers, busy ones included; 0 if the executor refuses jobs or has no workers, or all run zombies."""
        if self._refusal or self.zombies >= self.max_workers or (self._client is not None and not self._cluster_size):
            return 0
        return self.max_workers

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return len(self._queue)

    async def _watch_cluster(self) -> None:
        while True:
            await asyncio.sleep(CLUSTER_PAUSE)
            await self._update_cluster_size()
            self._start_queued()

    async def _update_cluster_size(self) -> None:
        assert self._client is not None
        try:
            self._cluster_size = sum((await asyncio.to_thread(self._client.nthreads)).values())
        except Exception as error:
            if self._cluster_size:
                log.error("the pool %r has lost its cluster: %s", self.name, _describe(error))
            self._cluster_size = 0

    # New jobs

    def lane(self, limit: int) -> Lane:
        """A lane whose jobs hold at most `limit` workers at a time."""
        return Lane(limit)

    def submit_frame(
        self,
        meta: Any,
        body: bytes | Arena,
        timeout: float | None = None,
        lane: Lane | None = None,
        key: Hashable = None,
    ) -> Job:
        """As in ProcessPoolExecutor. `key` is not used: an executor does not report which job has broken it."""
        payload = encode(meta), _all_bytes(body)
        if self._closing:
            raise PoolClosed("the pool is shutting down")
        self._jobs_made += 1
        job = Job(self._jobs_made, lane or self._open_lane, timeout, monotonic())
        job.frame, job.body = payload
        job.future = self._loop.create_future()
        if self._has_slot_for(job):
            self._start(job)
        elif len(self._queue) >= self.queue_size:
            raise QueueFull(f"{len(self._queue)} jobs wait already; try again later", self._retry_after())
        else:
            self._queue[job.number] = job
        if job.deadline < math.inf:
            self._alarm.set(job.deadline)
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """The caller no longer waits for `job`: take it from the queue, or make it a zombie if `even_running`."""
        if job.state is JobState.QUEUED:
            self._settle(job, JobAbandoned("the job was abandoned before it started"))
        elif job.state is JobState.RUNNING and even_running:
            self._withdraw(job)
            self._settle(job, JobAbandoned("the job was abandoned; it may run on"))

    def _jobs(self) -> list[Job]:
        return [*self._queue.values(), *(job for job, _ in self._running.values())]

    def _retry_after(self) -> int:
        return max(1, math.ceil((len(self._queue) + 1) * self._mean_run / self.max_workers))

    # Running jobs

    def _has_slot_for(self, job: Job) -> bool:
        return len(self._running) < self.max_workers and job.lane.running < job.lane.limit

    def _start_queued(self) -> None:
        """Start the oldest jobs whose lanes have room, while workers are free."""
        while job := next(filter(self._has_slot_for, self._queue.values()), None):
            try:
                self._start(job)
            except NoWorkers as error:
                self._settle(job, error)

    def _start(self, job: Job) -> None:
        """Submit the job to the executor; NoWorkers if it refuses."""
        try:
            future = self._submit_job(job)
        except Exception as error:  # it is broken or shut down, or cannot start another worker
            self._refusal = f"the executor takes no jobs: {_describe(error)}"
            raise NoWorkers(self._refusal) from error
        self._refusal = ""
        self._queue.pop(job.number, None)
        self._running[job.number] = job, future
        job.state, job.started = JobState.RUNNING, monotonic()
        job.lane.running += 1
        future.add_done_callback(partial(self._report_end, job))

    def _submit_job(self, job: Job) -> Future[Any]:
        return self._submit(job.frame, job.body)

    def _submit(self, meta: bytes | None, body: bytes) -> Future[Outcome]:
        # The program itself, not its pickle: loky and Dask know how to send functions of `__main__`.
        return self._executor.submit(_run_job, self._key, self._program, meta, body, **self._options)

    def _report_end(self, job: Job, future: Future[Outcome]) -> None:
        """The executor calls this, in any thread."""
        try:
            self._loop.call_soon_threadsafe(self._on_end, job, future)
        except RuntimeError:
            pass  # a zombie has outlived the loop

    def _on_end(self, job: Job, future: Future[Outcome]) -> None:
        """The executor has ended the job: its slot is free."""
        del self._running[job.number]
        job.lane.running -= 1
        ran = monotonic() - job.started
        self._mean_run += (ran - self._mean_run) / 10 if self._mean_run else ran
        self._settle(job, self._outcome(future))
        self._start_queued()

    def _outcome(self, future: Future[Outcome]) -> JobReply | Exception:
        if future.cancelled():
            return WorkerDied("the executor has dropped the job")
        error = future.exception()
        if error is None:
            self._refusal, result = "", future.result()
            return self._reply(result)
        if isinstance(error, BrokenExecutor):
            self._refusal = f"the executor is broken: {_describe(error)}"
        return WorkerDied(f"the executor has lost the job: {_describe(error)}")

    def _reply(self, result: Outcome) -> JobReply | RemoteError:
        if isinstance(result, ErrorText):
            return RemoteError(result.type_name, result.message, result.traceback)
        try:
            return JobReply(self._decode_meta(result[0]), result[1])
        except DecodeError as error:
            return RemoteError("DecodeError", f"the worker's reply has the wrong form: {error}", "")

    def _settle(self, job: Job, outcome: JobReply | Exception) -> None:
        """End the job for its caller, once. It keeps its slot until the executor reports its end."""
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
        """Cancel a job that the executor has not started, as other users of the executor keep it busy."""
        if job.number not in self._running or self._client is not None:  # Dask returns True for running jobs, too
            return False
        return self._running[job.number][1].cancel()

    # Deadlines

    def _postpone(self, seconds: float) -> None:
        for job in self._jobs():
            job.deadline += seconds

    def _on_alarm(self) -> None:
        """The earliest deadline has come, perhaps of a job that has ended: end late jobs and set the next alarm."""
        now = monotonic()
        unsettled = [job for job in self._jobs() if job.state is not JobState.DONE]
        for job in unsettled:
            if job.deadline <= now:
                self._expire(job)
        self._alarm.set(min((job.deadline for job in unsettled if job.deadline > now), default=math.inf))

    def _expire(self, job: Job) -> None:
        deadline = f"past its deadline of {job.timeout:g} s"
        if job.state is JobState.QUEUED or self._withdraw(job):
            self._settle(job, DeadlineInQueue(f"the job waited {deadline}", self._retry_after()))
        else:
            self._settle(job, DeadlineExceeded(f"the job ran {deadline}; it runs on, as nothing can stop it"))


def _dask_client(executor: Executor) -> Any:
    """The client behind Dask's `client.get_executor()`; None for other executors."""
    client = getattr(executor, "_client", None)
    return client if hasattr(client, "nthreads") else None


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _all_bytes(body: Any) -> bytes:
    """The bytes of an arena (closed here), of a buffer, or of an iterator, which is read to its end."""
    if isinstance(body, Arena):
        try:
            return bytes(body.view())
        finally:
            body.close()
    return b"".join(body) if isinstance(body, Iterator) else bytes(body)


# In the other process, or thread


Outcome = tuple[bytes, bytes] | ErrorText

_opened: dict[str, tuple[Callable[[bytes, bytes], tuple[bytes, bytes]], Finalize]] = {}
_opening = threading.Lock()


def _run_job(key: str, program: Program, meta: bytes | None, body: bytes) -> Outcome:
    """Run one job and return its reply or its failure. Without `meta`, only open the program."""
    try:
        run_encoded = _open(key, program)
        if meta is None:
            return b"", b""
        return copy_context().run(run_encoded, meta, body)  # in its own context, as in a worker
    except BaseException as error:  # SystemExit, too: a handler must not end the process
        return error_text(error)


def _call(run_job: JobFunction, decode_meta: Callable[[bytes], Any], meta: bytes, body: bytes) -> tuple[bytes, bytes]:
    reply = run_job(decode_meta(meta), body)
    return encode(reply.meta), _all_bytes(reply.body)


def _open(key: str, program: Program) -> Callable[[bytes, bytes], tuple[bytes, bytes]]:
    if key not in _opened:
        with _opening:
            if key not in _opened:
                _opened[key] = _enter(program)
    return _opened[key][0]


def _enter(program: Program) -> tuple[Callable[[bytes, bytes], tuple[bytes, bytes]], Finalize]:
    """Open the program until this process ends, or `_close` is called."""
    with ExitStack() as stack:
        if preload := getattr(program, "preload", None):
            stack.enter_context(preload())
        run_job = stack.enter_context(program())
        close = stack.pop_all().close
    run_encoded = partial(_call, run_job, Decoder(message_types(program).job).decode)
    return run_encoded, Finalize(None, close, exitpriority=1)  # not atexit, which forks of multiprocessing skip


def _close(key: str) -> None:
    if key in _opened:
        _, close = _opened.pop(key)
        close()
