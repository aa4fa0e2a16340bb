"""A pool of worker processes for an event loop, made to be cut off in the middle. It knows no HTTP.

    run / handle / stream ──> queue ──> a worker that is idle ──> result, error, or death
                              (FIFO,      (one socketpair each,
                               bounded)    at most one job on it)

The theory: two state machines and one rule.

    job      queued ──> running ──> done                  `done` is entered once; whoever comes second is not heard
    worker   starting ──> idle <──> busy ──> dying         then it is gone, and a successor starts

The rule: a worker becomes available only through its own READY or final frame, while it is busy with the very job that
the frame names. So a late result cannot reach another job, and a fresh worker is never blamed for its predecessor: they
have different numbers.

Every event (a job comes, a frame comes, a process ends, a deadline passes, somebody leaves) is one synchronous method
that changes these books and may then write to a socket; nothing here awaits between a decision and its effect.

Deadlines share one timer, set to the earliest. A worker is not asked to stop: it is killed, with all its children,
and replaced. That costs milliseconds, as the forkserver (worker.py) has the program loaded.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import logging
import math
import pickle
import signal
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from .errors import (
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
from .processes import Channel, Forkserver
from .settings import MiB, available_cores
from .worker import (
    CALL,
    CALL_STREAM,
    CHUNK,
    END,
    ERROR,
    FAILED,
    HANDLE,
    PICKLED,
    READY,
    RESULT,
    STREAM,
    Program,
    frame,
    plain_program,
)

log = logging.getLogger("tinysvc.executor")

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_QUEUE_SIZE = 1000
"""Jobs that may wait: at 20 ms a job and two workers, ten seconds of work; who comes later is told so at once."""

DEFAULT_MAX_RESULT_SIZE = 64 * MiB

STREAM_HIGH_WATER = 256 * 1024
"""Unread bytes of a stream before its worker's socket is left unread, and so its generator waits."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a worker that could not be started is tried again; doubled each time."""

SILENT_END = 0.1
"""Seconds between the end of a worker's channel and of its process; one that takes longer is killed."""

ORDERLY_END = 2.0
"""Seconds that idle workers get at shutdown to close their resources."""


class JobState(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class WorkerState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DYING = "dying"


class JobReply(NamedTuple):
    """What came back: the program's small value, and the body, whole or as a stream."""

    meta: Any
    body: bytes | JobStream


class Job:
    """One call in the pool. `future` gets its JobReply or its PoolError, once."""

    __slots__ = (
        "abandoned",
        "body",
        "deadline",
        "frame",
        "future",
        "kind",
        "number",
        "since",
        "state",
        "stream",
        "timeout",
        "worker",
    )

    def __init__(self, number: int, kind: int, meta: Any, body: bytes, timeout: float | None, now: float) -> None:
        self.number = number
        self.kind = kind
        self.frame = frame((number, kind, meta), len(body))  # now, so that what cannot be encoded never takes a worker
        self.body = body
        self.timeout = timeout
        self.deadline = math.inf if timeout is None else now + timeout
        self.since = now  # when it entered its state
        self.state = JobState.QUEUED
        self.abandoned = False  # it runs on for a moment, though nobody waits for it
        self.worker: Worker | None = None
        self.stream: JobStream | None = None
        self.future: asyncio.Future[JobReply]

    def settle(self, outcome: JobReply | Exception) -> None:
        if not self.future.done():
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        elif self.stream is not None and isinstance(outcome, Exception):
            self.stream.end(outcome)

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.state.value}>"


class Worker:
    """One worker process, as the server sees it."""

    __slots__ = ("channel", "job", "number", "since", "state", "why")

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.state = WorkerState.STARTING
        self.since = now
        self.job: Job | None = None
        self.channel: Channel
        self.why = ""  # why we killed it, for the log

    def __repr__(self) -> str:
        job = f" {self.job!r}" if self.job else ""
        return f"<Worker {self.number} {self.state.value}{job}>"


class JobStream:
    """The pieces a job yields, as an async iterator. `aclose` before its end kills the job."""

    def __init__(self, pool: ProcessPoolExecutor, job: Job) -> None:
        self._pool = pool
        self._job = job
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > STREAM_HIGH_WATER and not self._paused and self._job.worker is not None:
            self._paused = True
            self._job.worker.channel.transport.pause_reading()
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        self._ended, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._paused and self._held < STREAM_HIGH_WATER // 2 and self._job.worker is not None:
            self._paused = False
            self._job.worker.channel.transport.resume_reading()
        return piece

    async def aclose(self) -> None:
        self._pieces.clear()
        if not self._ended:
            self._pool.abandon(self._job, even_running=True)


class ProcessPoolExecutor(concurrent.futures.Executor):
    """Runs functions in worker processes, from an event loop (`await pool.run(...)`) or from plain code (`submit`).

    `max_workers` processes (default: the cores this process may use); `queue_size` jobs may wait for them;
    `initializer` and `initargs` as in the standard library. `program` replaces the initializer where a pool serves
    `submit_frame`: see worker.Program. What is given must be picklable by name, as with every process pool.

    *Deadlines.* With `timeout=` seconds, a job that still waits is dropped (DeadlineInQueue), one that runs is killed
    (DeadlineExceeded).

    *Cancellation.* Cancelling the task that awaits a job drops the job, or kills it unless it ends within the time
    that its worker's replacement takes.

    *Errors.* `run` and `submit` raise what the function raised if it can be pickled both ways, else RemoteError.
    A worker that dies is WorkerDied for its own job and nobody else's.

    *Resources.* No named semaphore, no shared memory, no file: one socketpair a worker, one forkserver; and a thread
    with a loop only where there is no loop to run on.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        queue_size: int = DEFAULT_QUEUE_SIZE,
        max_result_size: int = DEFAULT_MAX_RESULT_SIZE,
        program: Program | None = None,
        name: str = "default",
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        self.name = name
        self.max_workers = max_workers or available_cores()
        self.queue_size = queue_size
        self.max_result_size = max_result_size
        self.program: Program = program or partial(plain_program, initializer, initargs)
        self.workers: dict[int, Worker] = {}
        self.queue: OrderedDict[int, Job] = OrderedDict()
        self._idle: list[Worker] = []
        self._jobs_made = self._workers_made = 0
        self._failures = 0  # workers in a row that did not become ready
        self._last_failure = ""
        self._mean_run = 0.0  # seconds; moving averages
        self._mean_start = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._pauses: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._first_start: asyncio.Future[None] | None = None
        self._change = asyncio.Event()  # set whenever the books have changed
        self._closing = self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._forkserver: Forkserver | None = None
        self._forkserver_lost = True  # until it has started
        self._portal: tuple[AbstractContextManager[Any], Any] | None = None
        self._portal_lock = threading.Lock()

    # Life

    async def start(self) -> None:
        """Start the workers and wait until each is ready. WorkerStartError, with its traceback, if one cannot be."""
        if self._forkserver is not None or self._closing:
            raise RuntimeError("a pool is started once; make another one")
        self._loop = asyncio.get_running_loop()
        threads = max(1, available_cores() // self.max_workers)
        self._forkserver = Forkserver(self.program, threads, self._on_exit, self._on_forkserver_lost)
        self._first_start = self._loop.create_future()
        try:
            await self._forkserver.start()
            self._forkserver_lost = False
            self._fill_up()
            await self._first_start
        except BaseException:
            await self.aclose(0)
            raise

    async def aclose(self, timeout: float | None = 10.0) -> None:
        """Take no new jobs, let those there are finish for `timeout` seconds (None: no end), then kill the rest."""
        if self._forkserver is None or self._closed:
            self._closed = self._closing = True
            return
        self._closing = True
        try:
            await self._wait_until(lambda: not self._jobs_left(), timeout)
        finally:
            await self._end(orderly=timeout != 0)

    async def _end(self, orderly: bool) -> None:
        """Settle what is left, let idle workers close their resources, kill the others, stop the forkserver."""
        assert self._forkserver is not None
        self._closed = True
        for job in list(self._all_jobs()):
            self._finish(job, PoolClosed("the pool was shut down before the job ended"))
        for pause in self._pauses:
            pause.cancel()
        for worker in self.workers.values():
            if worker.state is WorkerState.IDLE:
                worker.channel.close()  # it reads the end of its channel, closes its resources and leaves
            else:
                self._kill(worker, "ran on while the pool was shut down")
        if orderly:
            await self._wait_until(lambda: not self.workers, ORDERLY_END)
        for task in list(self._tasks):
            task.cancel()
        if not self._forkserver_lost:
            await self._forkserver.stop()
        for worker in list(self.workers.values()):
            self._on_exit(worker.number, None, "")
        if self._alarm is not None:
            self._alarm.cancel()

    async def _wait_until(self, condition: Callable[[], bool], timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            pass

    def _jobs_left(self) -> bool:
        return bool(self.queue) or any(worker.job is not None for worker in self.workers.values())

    def _all_jobs(self) -> list[Job]:
        return [*self.queue.values(), *(worker.job for worker in self.workers.values() if worker.job is not None)]

    async def __aenter__(self) -> ProcessPoolExecutor:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def ready(self) -> int:
        """How many workers are ready for jobs or at work on one."""
        return sum(worker.state in (WorkerState.IDLE, WorkerState.BUSY) for worker in self.workers.values())

    # Jobs come

    async def run(self, function: Callable[P, T], /, *args: Any, timeout: float | None = None, **kwargs: Any) -> T:
        """Call `function(*args, **kwargs)` in a worker and return its result; all of it travels as pickles."""
        job = self._admit(CALL, None, pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL), timeout)
        reply = await self._result(job)
        return _unpickled(reply.body)  # type: ignore[no-any-return]

    async def stream(
        self, function: Callable[..., Any], /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        """Iterate over `function(*args, **kwargs)` in a worker. Closing the iterator early kills the job."""
        job = self._admit(CALL_STREAM, None, pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL), timeout)
        reply = await self._result(job)
        assert isinstance(reply.body, JobStream)
        try:
            async for piece in reply.body:
                yield _unpickled(piece)
        finally:
            await reply.body.aclose()

    def submit_frame(self, meta: Any, body: bytes, timeout: float | None = None) -> Job:
        """Hand `meta` (what MessagePack can carry) and `body` to the program. Await `job.future` for the JobReply."""
        return self._admit(HANDLE, meta, body, timeout)

    def _admit(self, kind: int, meta: Any, body: bytes, timeout: float | None) -> Job:
        if self._closing:
            raise PoolClosed("the pool is shutting down")
        if self._forkserver is None:
            raise RuntimeError("the pool has not been started: write `async with pool:`, or await pool.start()")
        now = self._loop.time()
        self._jobs_made += 1
        job = Job(self._jobs_made, kind, meta, body, timeout, now)
        if self._idle:
            job.future = self._loop.create_future()
            self._assign(self._idle.pop(), job, now)
        elif self._failures and not self.ready:
            raise NoWorkers(f"no worker is alive: {self._last_failure}", math.ceil(self._pause()))
        elif len(self.queue) >= self.queue_size:
            raise QueueFull(f"{len(self.queue)} jobs wait already; try again later", self._retry_after())
        else:
            job.future = self._loop.create_future()
            self.queue[job.number] = job
        if job.deadline < math.inf:
            self._set_alarm(job.deadline)
        return job

    async def _result(self, job: Job) -> JobReply:
        try:
            return await job.future
        except asyncio.CancelledError:
            self.abandon(job, even_running=True)
            raise

    def _retry_after(self) -> int:
        """Seconds until a job that came now would be started: jobs in front of it times their mean run time."""
        return max(1, math.ceil((len(self.queue) + 1) * self._mean_run / self.max_workers))

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """Nobody waits for `job` any more: take it from the queue; if it runs, kill it only if told to.

        A running job is given as long as a replacement of its worker takes: most end by themselves in that time.
        """
        if job.state is JobState.QUEUED:
            self._finish(job, JobAbandoned("nobody waits for the job any more; it was not started"))
        elif job.state is JobState.RUNNING and even_running:
            job.abandoned = True
            job.deadline = min(job.deadline, job.since + self._mean_start)
            if job.deadline <= self._loop.time():
                self._expire(job)
            else:
                self._set_alarm(job.deadline)

    # Jobs go

    def _assign(self, worker: Worker, job: Job, now: float) -> None:
        worker.state, worker.job = WorkerState.BUSY, job
        job.state, job.worker, job.since = JobState.RUNNING, worker, now
        worker.channel.send(job.frame, job.body)
        job.body = b""

    def _available(self, worker: Worker) -> None:
        """`worker` can take a job: the first in the queue, if there is one."""
        if self.queue:
            _, job = self.queue.popitem(last=False)
            self._assign(worker, job, self._loop.time())
        else:
            worker.state = WorkerState.IDLE
            self._idle.append(worker)
        self._change.set()

    def _finish(self, job: Job, outcome: JobReply | Exception) -> None:
        """A job ends, in whatever way. What its worker does next is decided by the caller."""
        if job.state is JobState.DONE:
            return
        if job.state is JobState.QUEUED:
            self.queue.pop(job.number, None)
        if job.worker is not None:
            job.worker.job = None
            if job.stream is not None:
                job.worker.channel.transport.resume_reading()
            job.worker = None
        job.state = JobState.DONE
        job.settle(outcome)
        self._change.set()

    # What workers tell

    def _on_frame(self, worker: Worker, head: Any, body: bytes) -> None:
        if worker.state is WorkerState.DYING:
            return
        if not (isinstance(head, list) and len(head) == 3):
            self._broke_the_rules(worker, f"sent a frame with the head {head!r}")
            return
        number, kind, meta = head
        job = worker.job
        if worker.state is WorkerState.STARTING and kind == READY:
            self._failures, self._last_failure = 0, ""
            self._mean_start = _mean(self._mean_start, self._loop.time() - worker.since)
            self._available(worker)
            if self._first_start is not None and not self._first_start.done() and self.ready == self.max_workers:
                self._first_start.set_result(None)
        elif worker.state is WorkerState.STARTING and kind == FAILED:
            self._last_failure = str(meta)
        elif job is None or number != job.number:
            self._broke_the_rules(worker, f"sent a frame for job {number}, but has {job!r}")
        elif kind == CHUNK and job.stream is not None:
            job.stream.feed(body)
        elif kind == STREAM and job.stream is None:
            job.stream = JobStream(self, job)
            job.settle(JobReply(meta, job.stream))
        elif kind == END and job.stream is not None:
            job.stream.end()
            self._done(worker, job, JobReply(None, b""))
        elif kind == (RESULT if job.kind == HANDLE else PICKLED) and job.stream is None:
            self._done(worker, job, JobReply(meta, body))
        elif kind == ERROR and isinstance(meta, list) and len(meta) == 4:
            type_name, message, traceback, leaving = meta
            # What a program's worker sends is never unpickled: nothing of it may run here.
            error = _remote_error(type_name, message, traceback, b"" if job.kind == HANDLE else body)
            self._done(worker, job, error, leaving)
        else:
            self._broke_the_rules(worker, f"sent a frame of kind {kind} for {job!r}")

    def _broke_the_rules(self, worker: Worker, how: str) -> None:
        worker.channel.fail(how)
        self._kill(worker, how)

    def _done(self, worker: Worker, job: Job, outcome: JobReply | Exception, leaving: bool = False) -> None:
        self._mean_run = _mean(self._mean_run, self._loop.time() - job.since)
        self._finish(job, outcome)
        if leaving:
            self._kill(worker, "ran out of memory")
        else:
            self._available(worker)

    def _on_channel_closed(self, worker: Worker, why: str) -> None:
        """Its process has ended, and `_on_exit` follows at once; or it lives on without one, and is of no use."""
        if worker.number not in self.workers or worker.state is WorkerState.DYING:
            return
        if why:
            self._kill(worker, why)
            return
        self._retire(worker)
        self._loop.call_later(SILENT_END, self._kill_silent, worker)

    def _kill_silent(self, worker: Worker) -> None:
        if worker.number in self.workers and self._forkserver is not None:
            worker.why = "closed its socket and went on"
            self._forkserver.kill(worker.number)

    def _on_exit(self, number: int, exit_code: int | None, text: str) -> None:
        """The process of worker `number` has ended (or, with exit_code None, could not be forked)."""
        worker = self.workers.pop(number, None)
        if worker is None:
            return
        if worker in self._idle:
            self._idle.remove(worker)
        started = worker.state is not WorkerState.STARTING
        how = f"worker {number} {text or _manner_of_death(exit_code, worker.why)}"
        if worker.job is not None:
            ran = self._loop.time() - worker.job.since
            self._finish(worker.job, WorkerDied(f"{how}, {ran:.3f} s into the job", exit_code))
        elif not self._closing and not worker.why:
            log.warning("%s", how)
        worker.state = WorkerState.DYING
        worker.channel.close()
        if not started:
            self._failures += 1
            self._last_failure = self._last_failure or how
            if self._first_start is not None and not self._first_start.done():
                self._first_start.set_exception(WorkerStartError("a worker cannot start", self._last_failure))
            elif not self._closed:
                log.error("%s; trying again in %.1f s\n%s", how, self._pause(), self._last_failure)
                self._refuse_queue()
        self._replace()
        self._change.set()

    def _refuse_queue(self) -> None:
        if not self.ready:
            for job in list(self.queue.values()):
                self._finish(job, NoWorkers(f"no worker is alive: {self._last_failure}", math.ceil(self._pause())))

    def _on_forkserver_lost(self) -> None:
        if self._closed:
            return
        log.error("the forkserver has died, and the workers with it; starting another")
        self._forkserver_lost = True
        for worker in list(self.workers.values()):
            worker.why = "lost its forkserver"
            self._on_exit(worker.number, -signal.SIGKILL, "")
        self._spawn(self._restart_forkserver())

    async def _restart_forkserver(self) -> None:
        assert self._forkserver is not None
        while not self._closed:
            try:
                await self._forkserver.start()
            except (WorkerStartError, OSError) as error:
                self._failures += 1
                self._last_failure = str(error)
                log.error("the forkserver cannot start; trying again in %.1f s: %s", self._pause(), self._last_failure)
                self._refuse_queue()
                await asyncio.sleep(self._pause())
            else:
                self._forkserver_lost = False
                self._fill_up()
                return

    # Workers come and go

    def _fill_up(self) -> None:
        while (
            not self._closed and not self._forkserver_lost and len(self.workers) + len(self._pauses) < self.max_workers
        ):
            self._workers_made += 1
            worker = Worker(self._workers_made, self._loop.time())
            worker.channel = Channel(
                partial(self._on_frame, worker), partial(self._on_channel_closed, worker), self.max_result_size
            )
            self.workers[worker.number] = worker
            self._spawn(self._start_worker(worker))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_worker(self, worker: Worker) -> None:
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                try:
                    await self._loop.create_unix_connection(lambda: worker.channel, sock=ours)
                except OSError:
                    ours.close()
                    raise
                assert self._forkserver is not None
                self._forkserver.fork(worker.number, theirs)
        except OSError as error:  # out of descriptors, say
            self._on_exit(worker.number, None, f"could not be started: {error}")

    def _replace(self) -> None:
        if self._closed:
            return
        if not self._failures:
            self._fill_up()
        elif len(self.workers) + len(self._pauses) < self.max_workers:

            def again() -> None:
                self._pauses.discard(pause)
                self._fill_up()

            pause = self._loop.call_later(self._pause(), again)
            self._pauses.add(pause)

    def _pause(self) -> float:
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 20))

    def _kill(self, worker: Worker, why: str) -> None:
        if worker.state is WorkerState.DYING:
            return
        self._retire(worker)
        worker.why = why
        assert self._forkserver is not None
        self._forkserver.kill(worker.number)

    def _retire(self, worker: Worker) -> None:
        """It gets no more jobs. One that never was ready stays `starting`, so that its end counts as a failed start."""
        if worker.state is not WorkerState.STARTING:
            worker.state = WorkerState.DYING
        if worker in self._idle:
            self._idle.remove(worker)

    # Deadlines

    def _set_alarm(self, when: float) -> None:
        if self._alarm is None or when < self._alarm.when():
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        """The earliest deadline has come, if its job is still there: end what is late and set the next alarm."""
        now = self._loop.time()
        self._alarm = None
        jobs = self._all_jobs()
        for job in jobs:
            if job.deadline <= now:
                self._expire(job)
        next_deadline = min((job.deadline for job in jobs if job.deadline > now), default=math.inf)
        if next_deadline < math.inf:
            self._set_alarm(next_deadline)

    def _expire(self, job: Job) -> None:
        worker = job.worker
        if worker is None:
            self._finish(job, DeadlineInQueue(_too_late("waited", job), self._retry_after()))
        elif job.abandoned:
            self._finish(job, JobAbandoned("nobody waits for the job any more; it was stopped"))
            self._kill(worker, "ran a job that nobody waited for any more")
        else:
            self._finish(job, DeadlineExceeded(_too_late("ran", job)))
            self._kill(worker, "ran a job past its deadline")

    # From plain code, as concurrent.futures has it

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Call `fn(*args, **kwargs)` in a worker. Safe from any thread; a pool without a loop gets one of its own."""
        if self._closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self._ensure_loop()
        result: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._submit, result, fn, args, kwargs)
        return result

    def _submit(self, result: concurrent.futures.Future[T], fn: Callable[..., T], args: Any, kwargs: Any) -> None:
        async def relay() -> None:
            if not result.set_running_or_notify_cancel():
                return
            try:
                await self._wait_until(lambda: bool(self._idle) or len(self.queue) < self.queue_size, None)
                result.set_result(await self.run(_call, fn, args, kwargs))
            except BaseException as error:
                result.set_exception(error)

        self._spawn(relay())

    def _ensure_loop(self) -> None:
        with self._portal_lock:
            if hasattr(self, "_loop"):
                return
            from anyio.from_thread import start_blocking_portal

            manager = start_blocking_portal()
            portal = manager.__enter__()
            self._portal = manager, portal
            portal.call(self.start)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the pool, from plain code; inside its event loop use `await pool.aclose()`."""
        if self._portal is None:
            self._closing = True
            return
        manager, portal = self._portal
        self._portal = None
        portal.call(self.aclose, 0 if cancel_futures else None if wait else 10.0)
        manager.__exit__(None, None, None)


def _call(fn: Callable[..., T], args: Any, kwargs: Any) -> T:
    return fn(*args, **kwargs)


def _unpickled(body: bytes | JobStream) -> Any:
    assert isinstance(body, bytes)
    try:
        return pickle.loads(body)
    except Exception as error:
        raise RemoteError(type(error).__name__, f"the result cannot be unpickled: {error}", "") from error


def _remote_error(type_name: str, message: str, traceback: str, body: bytes) -> Exception:
    """RemoteError; for run() and submit() the exception itself where it could be pickled, caused by the RemoteError."""
    remote = RemoteError(type_name, message, traceback)
    if body:
        try:
            original = pickle.loads(body)
        except Exception:
            return remote
        # Others would end the loop (SystemExit, KeyboardInterrupt) or cannot be set on a future (StopIteration).
        if isinstance(original, Exception) and not isinstance(original, StopIteration):
            original.__cause__ = remote
            return original
    return remote


def _mean(old: float, new: float) -> float:
    """A moving average over about ten values."""
    return new if not old else old + (new - old) / 10


def _too_late(did: str, job: Job) -> str:
    return f"the job {did} past its deadline of {job.timeout:g} s"


def _manner_of_death(exit_code: int | None, why: str) -> str:
    """How a process ended, in words. `why` is our own reason, where it was us who killed it."""
    if why:
        return f"was killed: it {why}"
    if exit_code is None:
        return "was ended"
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    if exit_code != -signal.SIGKILL:
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-exit_code, f'signal {-exit_code}')}"
    return "was killed by SIGKILL, out of memory perhaps"
