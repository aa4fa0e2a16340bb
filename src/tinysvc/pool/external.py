"""A pool over any concurrent.futures.Executor: the standard pools, loky, or Dask's client of a cluster.

    submit_job ────> queue ──────────> executor.submit ──> _run_job, in some process ──> reply or failure, as bytes
                     (FIFO, bounded)   (one a worker)      (the program, opened once)

An executor cannot stop a job that it has started. So it gets a job only when it has a free worker. All other jobs wait
in a queue (job_queue.py), where deadlines, lanes and disconnects work exactly as in our own pool. A slot of the queue
is a call of the executor: it is free when the executor reports the end of the job, and not before.

A *zombie* is a job that is done for its caller, but still runs: it cannot be stopped, and it holds its slot.

`_run_job` returns a reply or a failure, whatever a handler does. So an exception that an executor reports is its own: a
worker has died.

The executor belongs to the code that made it, and is never shut down here. Resources of the program are closed with the
pool if they are within reach (threads of this process, a Dask cluster), else when their process ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
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
from ..core.errors import NoWorkers, PoolError, RemoteError, WorkerDied, WorkerStartError
from ..core.settings import DEFAULT_QUEUE_SIZE
from ..core.tracebacks import author_traceback
from .alarm import Alarm
from .answers import AnswerFunction
from .arena import Arena, Arenas
from .frames import ErrorText, encode, message_types
from .job_queue import Instruction, JobQueue, Run, Settle, Stop, WakeAt
from .job_reply import JobReply, settle
from .observer import PoolObserver
from .program import JobFunction, Program
from .remote_errors import error_text
from .state import START_LIMIT, Job, Lane, Slot, WorkerStatus

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
        self,
        executor: Executor,
        program: Program,
        *,
        name: str = "default",
        queue_size: int = DEFAULT_QUEUE_SIZE,
        label: str = "",
    ) -> None:
        self.name = name
        self.warnings: list[str] = []
        self.observer: PoolObserver | None = None
        self.generation = label  # of its program, which only InProcessPool can swap
        self.queue_size = queue_size
        self._executor = executor
        self._program = program
        self.answer: AnswerFunction | None = None  # its jobs cannot ask: an executor has no channel for that
        self._decode_meta = Decoder(message_types(program).result).decode
        self._key = uuid.uuid4().hex  # of the programs that this pool has opened in other processes
        self._client = _dask_client(executor)
        self._options = {"pure": False} if self._client else {}  # else Dask caches the results of equal calls
        self._cluster_size = 0
        self._cluster_watch: asyncio.Task[None] | None = None
        self._queue: JobQueue[Slot] = JobQueue(
            0,
            queue_size,
            when_late="; it runs on, as nothing can stop it",
            when_abandoned="the job was abandoned; it may run on",
        )
        self._refusal = ""  # why the executor last refused or lost a job; "" if it works
        self._alarm = Alarm(self._on_alarm, self._queue.postpone)
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
        self._queue.closing = True
        try:
            if unsettled := [job.future for job in self._queue.jobs()]:
                await asyncio.wait(unsettled, timeout=timeout)
        finally:
            self._carry_out(self._queue.close(monotonic()))
            self._alarm.cancel()
            if self._cluster_watch is not None:
                self._cluster_watch.cancel()
            await self._close_programs()

    async def _close_programs(self) -> None:
        if self.is_at_work:
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
        return sum(slot.job is None for slot in self._queue.at_work)

    @property
    def is_at_work(self) -> bool:
        """Whether the executor still runs a job."""
        return any(not slot.handle.done() for slot in self._queue.at_work)

    @property
    def ready(self) -> int:
        """All workers, busy ones included; 0 if the executor refuses jobs or has no workers, or all run zombies."""
        if self._refusal or self.zombies >= self.max_workers or (self._client is not None and not self._cluster_size):
            return 0
        return self.max_workers

    @property
    def waiting(self) -> int:
        """Jobs that wait for a worker."""
        return self._queue.waiting

    def workers(self) -> list[WorkerStatus]:
        """None: the processes and threads of another executor are not known."""
        return []

    async def stacks(self, number: int) -> str:
        """Always LookupError: see `workers`."""
        raise LookupError(f"the pool {self.name} has no worker {number}: its executor has its own processes")

    def replace(self, number: int) -> None:
        """Always LookupError: see `workers`."""
        raise LookupError(f"the pool {self.name} has no worker {number}: its executor has its own processes")

    def worker_states(self) -> dict[str, int]:
        """How many workers are idle, and how many run a job."""
        busy = min(len(self._queue.at_work), self.max_workers)
        return {"idle": self.max_workers - busy, "busy": busy}

    async def _watch_cluster(self) -> None:
        while True:
            await asyncio.sleep(CLUSTER_PAUSE)
            await self._update_cluster_size()
            self._resize()

    async def _update_cluster_size(self) -> None:
        assert self._client is not None
        try:
            self._cluster_size = sum((await asyncio.to_thread(self._client.nthreads)).values())
        except Exception as error:
            if self._cluster_size:
                log.error("the pool %r has lost its cluster: %s", self.name, _describe(error))
            self._cluster_size = 0

    # Jobs

    def lane(self, limit: int) -> Lane:
        """A lane whose jobs hold at most `limit` workers at a time."""
        return self._queue.lane(limit)

    def submit_job(self, job: Job) -> Job:
        """As in ProcessPoolExecutor. `job.key` is not used: an executor does not report which job has broken it."""
        job.frame, job.body = encode(job.meta), _all_bytes(job.body)
        job.number = next(self._queue.numbers)
        job.pool, job.future = self, self._loop.create_future()
        self._resize()
        try:
            slot = self._queue.admit(job, monotonic())
        except PoolError as error:
            if self.observer is not None:
                self.observer.on_refusal(error)
            raise
        if slot is not None and (refusal := self._start(slot)) is not None:
            job.future.cancel()  # the refusal is raised here
            self._carry_out(self._queue.end(slot, [refusal], monotonic()))
            raise refusal
        self._carry_out(self._queue.take())
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """The caller no longer waits for `job`: take it from the queue, or make it a zombie if `even_running`."""
        self._carry_out(self._queue.abandon(job, monotonic(), even_running=even_running))

    async def stop(self, job: Job) -> None:
        """Take `job` from the queue, or wait until it has ended: nothing can stop it."""
        slot = next((each for each in self._queue.at_work if job in each.jobs), None)
        self.abandon(job, even_running=True)
        if slot is not None and not slot.handle.done():
            await asyncio.wait([asyncio.wrap_future(slot.handle)])

    # The queue's instructions

    def _resize(self) -> None:
        """Note the present number of workers: no event reports that an executor has grown or shrunk."""
        self._carry_out(self._queue.resize(self.max_workers, monotonic()))

    def _carry_out(self, todo: list[Instruction]) -> None:
        for each in todo:  # which grows while the executor refuses jobs
            if isinstance(each, Settle):
                settle(each.job.future, each.outcome)
                if self.observer is not None:
                    self.observer.on_job_end(each.job, each.outcome)
            elif isinstance(each, Run):
                if (refusal := self._start(each.slot)) is not None:
                    todo += self._queue.end(each.slot, [refusal], monotonic())
            elif isinstance(each, Stop):
                self._withdraw(each.slot)
            elif isinstance(each, WakeAt):
                self._alarm.set(each.when)

    def _start(self, slot: Slot) -> NoWorkers | None:
        """Submit the job of the slot to the executor. Returns the error if it refuses."""
        (job,) = slot.jobs
        try:
            slot.handle = self._submit_job(job)
        except Exception as error:  # it is broken or shut down, or cannot start another worker
            self._refusal = f"the executor takes no jobs: {_describe(error)}"
            refusal = NoWorkers(self._refusal)
            refusal.__cause__ = error
            job.started = 0.0
            return refusal
        self._refusal = ""
        slot.handle.add_done_callback(partial(self._report_end, slot))
        return None

    def _submit_job(self, job: Job) -> Future[Any]:
        return self._submit(job.frame, job.body)

    def _submit(self, meta: bytes | None, body: bytes) -> Future[Outcome]:
        # The program itself, not its pickle: loky and Dask know how to send functions of `__main__`.
        return self._executor.submit(_run_job, self._key, self._program, meta, body, **self._options)

    def _report_end(self, slot: Slot, future: Future[Outcome]) -> None:
        """The executor calls this, in any thread."""
        try:
            self._loop.call_soon_threadsafe(self._on_end, slot, future)
        except RuntimeError:
            pass  # a zombie has outlived the loop

    def _on_end(self, slot: Slot, future: Future[Outcome]) -> None:
        """The executor has ended the job: its slot is free."""
        self._resize()
        self._carry_out(self._queue.end(slot, [self._outcome(future)], monotonic()))

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

    def _withdraw(self, slot: Slot) -> bool:
        """Cancel a job that the executor has not started, as other users of the executor keep it busy."""
        return self._client is None and slot.handle.cancel()  # Dask returns True for running jobs, too

    def _on_alarm(self) -> None:
        now = monotonic()
        for slot in self._queue.at_work:
            (job,) = slot.jobs
            if job.deadline <= now and slot.job is job and self._withdraw(slot):
                job.started = 0.0  # it has only waited
        self._carry_out(self._queue.tick(now))


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
