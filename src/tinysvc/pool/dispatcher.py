"""The dispatcher: carries out the scheduler's decisions on an event loop, and reports events to the scheduler.

    scheduler                decides which job runs where, and which worker is killed
    dispatcher               sends frames, starts and kills processes, sets the alarm, settles futures
    channel, forkserver      the server's ends of the sockets

Everything here runs on the loop. Events (a job or a frame comes, a process ends, the alarm rings) are ordinary methods:
each reads the clock, calls the scheduler once, and carries out its instructions. No `await` stands between a decision
and its effect. The clock is `time.monotonic`, as uvloop's own counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from ..core.cores import available_cores
from ..core.errors import PoolClosed, PoolError, WorkerStartError
from ..core.pool_settings import DEFAULT_POOL
from ..core.shutdown import MIN_STEP_TIME, LoopCountdown, awake_timeout
from ..core.tracebacks import one_line
from . import frames
from .alarm import Alarm
from .answers import Answers
from .arena import Arena
from .body_memory import BodyMemory
from .channel import Channel
from .crash_reports import describe_end
from .descendants import new_mark
from .forkserver import Forkserver
from .frames import FRAME, Call, FromWorker, Pickled, Result, RunProgram, WorkerEnd, encode
from .job_queue import Run, Settle, WakeAt
from .job_reply import JobReply, JobStream, settle
from .observer import PoolObserver, cause_of
from .program import Program, SharedMemory, WorkerOptions
from .remote_errors import remote_error
from .scheduler import KEPT_RUNNING, ORDERLY_END, PAST_DEADLINE, Dismiss, Kill, Scheduler, StartWorker
from .standard_streams import open_standard_streams
from .state import DYING, EXITING, STARTING, Job, Worker
from .worker_logs import log_record

log = logging.getLogger("tinysvc.executor")

NOT_STARTED = (
    "the pool has not been started on this loop: write `async with pool:` or await pool.start() before its first use, "
    "or loop.run_in_executor(pool, ...)"
)


class Dispatcher:
    """One pool at work on one event loop. Other objects may read `scheduler`, but only the dispatcher calls it."""

    def __init__(
        self,
        program: Program,
        *,
        name: str,
        size: int,
        queue_size: int,
        max_result_size: int,
        max_jobs: int,
        max_memory: int,
        memory_limit: int,
        inherited: Sequence[int] = (),
        shared: SharedMemory | None = None,
    ) -> None:
        open_standard_streams()  # before a loop gets the number of a closed one
        self.name = name
        self.scheduler = Scheduler(size, queue_size, max_jobs, max_memory)
        self.changed = asyncio.Event()  # set whenever a job or a worker has ended, or a worker is ready
        self.warnings: list[str] = []
        self._program = program
        self._max_result_size = max_result_size
        self._memory_limit = memory_limit
        self._inherited = inherited  # it is read at the start
        self._shared = shared
        self._decode = frames.worker_decoder(*frames.message_types(program)[1:3])
        self.answers = Answers()
        self.on_report: Callable[[int, Any], None] | None = None  # takes a worker's number and its report
        self.observer: PoolObserver | None = None
        self._closed = asyncio.Event()  # the pool has no process and no descriptor left
        self._memory = BodyMemory(self.scheduler, max_result_size)
        self.arenas = self._memory.arenas
        self._alarm = Alarm(self._on_alarm, self.scheduler.postpone)
        self._now = self._alarm.now  # for events that may be read too late
        self._tasks: set[asyncio.Task[None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._first_start: asyncio.Future[None]
        self._forkserver: Forkserver

    # Start and end

    async def start(self) -> None:
        """Start the workers and wait until each is ready. WorkerStartError, with its traceback, if one cannot start."""
        self.loop = loop = asyncio.get_running_loop()
        self._first_start = loop.create_future()
        level = logging.getLogger().getEffectiveLevel()
        measures_memory = self.scheduler.max_memory > 0
        options = WorkerOptions(
            level,
            self._max_result_size,
            measures_memory,
            self._memory_limit,
            new_mark(),
            tuple(self._inherited),
            self._shared.in_forkserver if self._shared else None,
        )
        threads = max(1, available_cores() // self.scheduler.size)
        self._forkserver = Forkserver(self._program, options, threads, self._on_end, self._on_forkserver_lost)
        try:
            await self._forkserver.start()
            self._warn()
            if self.scheduler.closed:
                await self._forkserver.stop()
                raise PoolClosed("the pool was shut down while it started")
            self._carry_out(self.scheduler.open(monotonic()))
            await self._first_start
        except BaseException:
            await self.aclose(0)
            raise

    def _warn(self) -> None:
        """Log what the workers inherit and cannot use."""
        self.warnings = self._forkserver.warnings
        for warning in self.warnings:
            log.warning("%s%s", "" if self.name == DEFAULT_POOL else f"the pool {self.name}: ", warning)

    async def aclose(self, timeout: float | None) -> None:
        """Admit no more jobs, let the present ones finish within `timeout` seconds (None: no limit), kill the rest."""
        if self.scheduler.closed:
            await self._closed.wait()  # another task closes the pool
            return
        self.scheduler.closing = True
        countdown = LoopCountdown(inf if timeout is None else timeout)
        try:
            await self.wait_until(lambda: not any(self.scheduler.jobs()), timeout)
        finally:
            self._carry_out(self.scheduler.close(monotonic()))
            if not self._first_start.done():
                self._first_start.set_exception(PoolClosed("the pool was shut down while it started"))
                self._first_start.exception()  # mark it as retrieved: perhaps no task waits for it
            try:
                if timeout != 0:
                    seconds = min(ORDERLY_END, max(MIN_STEP_TIME, countdown.left()))
                    await self.wait_until(lambda: not self.scheduler.workers, seconds)
                await self._stop(max(2 * MIN_STEP_TIME, countdown.left()))
            finally:
                countdown.cancel()
                self._closed.set()

    async def _stop(self, seconds: float) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if self.scheduler.can_start or tasks:  # one of the tasks may start another forkserver
            await self._forkserver.stop(seconds)
        if tasks:
            await asyncio.wait(tasks)
        for worker in list(self.scheduler.workers.values()):
            self._on_end(WorkerEnd(worker.number, None, "was ended with the pool"))
        self._alarm.cancel()
        self._memory.close()

    async def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        with suppress(TimeoutError):
            async with awake_timeout(timeout):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()

    # Jobs

    def submit_job(self, job: Job) -> Job:
        """Start or queue a new job. Await `job.future` for its JobReply.

        Raises:
            PoolError: Neither is possible.
            TypeError: MessagePack cannot carry `job.meta`.
            RuntimeError: The pool has not been started.
        """
        scheduler = self.scheduler
        if self.loop is None:
            if scheduler.closing:
                raise PoolClosed("the pool is shutting down")
            raise RuntimeError(NOT_STARTED)
        job.number = next(scheduler.numbers)
        body = job.body
        # The frame is encoded now: a job that cannot be encoded never takes a worker.
        if isinstance(body, Arena):
            job.arena, job.body = body, b""
            head = encode(job.kind(job.number, body.size, job.meta))
            job.frame = FRAME.pack(len(head), 0) + head
        else:
            head = encode(job.kind(job.number, 0, job.meta))
            job.frame = FRAME.pack(len(head), len(body)) + head
        job.pool, job.future = self, self.loop.create_future()
        try:
            worker = scheduler.admit(job, monotonic())
        except PoolError as error:
            if self.observer is not None:
                self.observer.on_refusal(error)
            raise
        if worker is not None:
            worker.channel.send(job.frame, job.body, job.arena)
            job.frame = job.body = b""
        if scheduler.todo:
            self._carry_out(scheduler.take())
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        self._carry_out(self.scheduler.abandon(job, monotonic(), even_running=even_running))

    def cancel(self, job: Job) -> None:
        self._carry_out(self.scheduler.cancel(job, monotonic()))

    def replace(self, number: int) -> None:
        self._carry_out(self.scheduler.replace(number, monotonic()))

    def pid_of(self, number: int) -> int:
        return self._forkserver.pids.get(number, 0)

    async def stacks(self, number: int) -> str:
        worker = self.scheduler.workers.get(number)
        if worker is None or worker.channel is None:
            raise LookupError(f"no worker {number} is at work; it has ended")
        text: str = await worker.channel.stacks(partial(self._forkserver.write_stacks, number))
        if not text:
            raise TimeoutError(f"worker {number} wrote no stacks: it is stopped, has ended, or waits in the kernel")
        return text

    # The scheduler's instructions

    def _carry_out(self, todo: list[Any]) -> None:
        for each in todo:
            kind = type(each)
            if kind is Settle:
                self.changed.set()
                job = each.job
                if self.answers.under_way:
                    self.answers.cancel(job)
                if job.arena is not None:
                    self._memory.release(job, each.outcome)
                if job.stream is not None:
                    job.stream.end(each.outcome)
                else:
                    settle(job.future, each.outcome)
                if self.observer is not None:
                    self.observer.on_job_end(job, each.outcome)
            elif kind is Run:
                (job,) = each.slot.jobs
                each.slot.channel.send(job.frame, job.body, job.arena)
                job.frame = job.body = b""
            elif kind is WakeAt:
                self._alarm.set(each.when)
            elif kind is StartWorker:
                self._spawn(self._start_worker(each.worker))
            elif kind is Dismiss:
                each.worker.channel.shut_down()
            else:
                assert kind is Kill
                self._forkserver.kill(each.worker.number, with_stack=each.worker.kill_reason == PAST_DEADLINE)

    async def _start_worker(self, worker: Worker) -> None:
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                try:
                    channel = self._channel(worker, ours)
                    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
                except BaseException:
                    ours.close()
                    raise
                self._forkserver.fork(worker.number, [theirs.fileno(), *channel.worker_files()])
        except OSError as error:  # no descriptor is free, for example
            self._on_end(WorkerEnd(worker.number, None, f"could not be started: {error}"))

    def _channel(self, worker: Worker, ours: socket.socket) -> Channel:
        on_frame, on_closed = partial(self._on_frame, worker), partial(self._on_closed, worker)
        limit, shared = self._max_result_size, self._shared
        worker.channel = channel = Channel(ours, self._decode, on_frame, on_closed, limit, shared)
        return channel

    # Events

    def _on_alarm(self) -> None:
        self._carry_out(self.scheduler.tick(monotonic()))

    def _on_frame(self, worker: Worker, head: FromWorker, body: bytes) -> None:
        if worker.state is EXITING or worker.state is DYING:
            return
        if isinstance(head, (Result, Pickled)):
            job = self.scheduler.held_by(worker, head.number)
            if job is None or job.stream is not None or job.kind is not (RunProgram if type(head) is Result else Call):
                self._wrong_frame(worker, head)
                return
            content: bytes | memoryview = body
            if head.size:
                try:
                    content = self._memory.take_result(worker.channel, head.size)
                except ValueError as error:
                    self._protocol_error(worker, str(error))
                    return
            reply = JobReply(head.meta if isinstance(head, Result) else head.lengths, content)
            now = monotonic()
            if now > self._alarm.stalled_at:
                now = self._now()
            self._carry_out(self.scheduler.done(worker, reply, now, head.memory))
        elif isinstance(head, frames.LogRecord):
            log_record(worker.number, self.name, head.fields)
        elif isinstance(head, frames.Report):
            if self.on_report is not None:
                self.on_report(worker.number, head.fields)
        elif isinstance(head, frames.Ready):
            if worker.state is STARTING:
                self._on_ready(worker)
            else:
                self._protocol_error(worker, "said a second time that it is ready")
        elif isinstance(head, frames.StartFailed):
            if worker.state is STARTING:
                worker.start_error = head.traceback
            else:
                self._protocol_error(worker, "reported a failed start after it was ready")
        else:
            self._on_job_frame(worker, head, body)

    def _on_ready(self, worker: Worker) -> None:
        self._carry_out(self.scheduler.became_ready(worker, self._now()))
        if not self._first_start.done() and self.scheduler.ready == self.scheduler.size:
            self._first_start.set_result(None)
        self.changed.set()

    def _on_job_frame(self, worker: Worker, head: frames.PartOfJob, body: bytes) -> None:
        """A frame of a job that is not a result: a part of a stream, an error, or BodyInUse."""
        job = self.scheduler.held_by(worker, head.number)
        if job is None:
            self._wrong_frame(worker, head)
        elif isinstance(head, frames.Chunk) and job.stream is not None:
            job.stream.feed(body)
        elif isinstance(head, frames.Question) and job not in self.answers.under_way:
            self.answers.begin(worker, job, head.meta, body)
        elif isinstance(head, frames.StreamBegin) and job.stream is None and job.kind is not Call:
            self._begin_stream(worker, job, head.meta)
        elif isinstance(head, frames.BodyInUse) and job.arena is not None:
            job.arena.close()
            job.arena = None
        elif isinstance(head, frames.StreamEnd) and job.stream is not None:
            self._carry_out(self.scheduler.done(worker, None, self._now(), memory=head.memory))
        elif isinstance(head, frames.JobError):
            # What a program's worker sends is never unpickled: its code must not run here.
            error = remote_error(head.error, b"" if job.kind is RunProgram else body)
            done = self.scheduler.done(worker, error, self._now(), memory=head.memory, poisoned=head.poisoned)
            self._carry_out(done)
        else:
            self._wrong_frame(worker, head)

    def _begin_stream(self, worker: Worker, job: Job, meta: Any) -> None:
        if job.future.done():
            self._carry_out(self.scheduler.cancel(job, self._now()))
            return
        job.settled = self._now()
        job.stream = JobStream(worker.channel.transport, partial(self.abandon, job, even_running=True))
        job.future.set_result(JobReply(meta, job.stream))

    def _wrong_frame(self, worker: Worker, head: Any) -> None:
        self._protocol_error(worker, f"sent a {type(head).__name__} for job {head.number}, but has {worker.job!r}")

    def _protocol_error(self, worker: Worker, error: str) -> None:
        error = one_line(error)
        worker.channel.fail(error)
        self._carry_out(self.scheduler.kill(worker, error, monotonic()))

    def _on_closed(self, worker: Worker, protocol_error: str) -> None:
        self._carry_out(self.scheduler.lost_channel(worker, monotonic(), protocol_error))

    def _on_end(self, end: WorkerEnd) -> None:
        """The process of a worker has ended, or could not be forked."""
        scheduler = self.scheduler
        worker = scheduler.workers.get(end.number)
        if worker is None:
            return
        if end.exit_code is not None and not end.killed and (end.exit_code < 0 or worker.kill_reason == KEPT_RUNNING):
            worker.kill_reason = ""  # it had ended before our SIGKILL, and not because its channel was closed
        channel, worker.channel = worker.channel, None
        stack = channel.close_for_good() if channel is not None else ""
        late = worker.kill_reason == PAST_DEADLINE
        if worker.kill_reason and not late:
            stack = ""
        how, report = f"worker {end.number} {end.text}", ""
        if not end.text:
            description = describe_end(
                end.exit_code, worker.kill_reason, out_of_memory=end.out_of_memory, peak=end.peak, stack=stack
            )
            how, _, report = f"worker {end.number} {description}".partition("; ")
        unexpected = worker.job is None and not worker.kill_reason and worker.state is not EXITING
        started = worker.started
        if self.observer is not None:
            self.observer.on_worker_end(cause_of(worker, end, is_closing=scheduler.closing))
        self._carry_out(scheduler.died(worker, self._now(), how, end.exit_code, f"; {report}" if report else ""))
        self.changed.set()
        if scheduler.closing:
            pass
        elif started and (unexpected or late):
            log.warning("%s%s", how, f"; {report}" if late else "")
        elif not started:
            self._on_failed_start(how)

    def _on_failed_start(self, how: str) -> None:
        backoff = self.scheduler.backoff
        if not self._first_start.done():
            worker = "a worker" if self.name == DEFAULT_POOL else f"a worker of the pool {self.name}"
            self._first_start.set_exception(WorkerStartError(f"{worker} cannot start", backoff.last_failure))
        else:
            log.error("%s; trying again in %.1f s\n%s", how, backoff.pause, backoff.last_failure)

    def _on_forkserver_lost(self) -> None:
        if self.scheduler.closed:
            return
        log.error("the forkserver has died, and the workers with it; starting another")
        self.scheduler.lost_forkserver()
        for number in list(self.scheduler.workers):
            self._on_end(WorkerEnd(number, -signal.SIGKILL, killed=True))
        self._spawn(self._restart_forkserver())

    async def _restart_forkserver(self) -> None:
        scheduler = self.scheduler
        while not scheduler.closed:
            try:
                await self._forkserver.start()
            except (WorkerStartError, OSError) as error:
                self._carry_out(scheduler.start_failed(str(error), monotonic()))
                log.error("the forkserver cannot start; trying again in %.1f s: %s", scheduler.backoff.pause, error)
                await asyncio.sleep(scheduler.backoff.pause)
            else:
                self._warn()
                self._carry_out(scheduler.open(monotonic()))
                return

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
