"""The dispatcher: carries out the scheduler's decisions on an event loop, and reports events to the scheduler.

    scheduler, generations   decide which job runs where, and which worker is started and killed
    dispatcher               sends frames, sets the alarm, settles futures
    worker_processes, swaps  start and end forkservers and workers
    channel, forkserver      the server's ends of the sockets

Everything here runs on the loop. Events (a job or a frame comes, a process ends, the alarm rings) are ordinary methods:
each reads the clock, calls the scheduler once, and carries out its instructions. No `await` stands between a decision
and its effect. The clock is `time.monotonic`, as uvloop's own counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from ..core.errors import PoolClosed, PoolError
from ..core.shutdown import MIN_STEP_TIME, LoopCountdown
from ..core.tracebacks import one_line
from . import frames
from .alarm import Alarm
from .answers import Answers
from .arena import Arena
from .body_memory import BodyMemory
from .channel import Channel
from .frames import FRAME, Call, FromWorker, Pickled, Result, RunProgram, encode
from .generations import GenerationScheduler, StopForkserver
from .job_queue import Run, Settle, WakeAt
from .job_reply import JobReply, JobStream, settle
from .program import Program, SharedMemory
from .remote_errors import remote_error
from .scheduler import ORDERLY_END, Dismiss, Kill, StartWorker
from .standard_streams import open_standard_streams
from .state import DYING, EXITING, START_LIMIT, STARTING, Generation, Job, Worker
from .swaps import Swaps
from .worker_logs import log_record
from .worker_processes import WorkerProcesses

NOT_STARTED = (
    "the pool has not been started on this loop: write `async with pool:` or await pool.start() before its first use, "
    "or loop.run_in_executor(pool, ...)"
)


class Dispatcher(WorkerProcesses):
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
        label: str = "",
        start_limit: float = START_LIMIT,
    ) -> None:
        open_standard_streams()  # before a loop gets the number of a closed one
        scheduler = GenerationScheduler(size, queue_size, max_jobs, max_memory, start_limit, Generation(label))
        super().__init__(
            scheduler,
            name=name,
            max_result_size=max_result_size,
            memory_limit=memory_limit,
            inherited=inherited,
            shared=shared,
        )
        self.program = program  # of the first generation
        self.swaps = Swaps(self, self._carry_out)
        self._decode = frames.worker_decoder(*frames.message_types(program)[1:3])
        self.answers = Answers()
        self.on_report: Callable[[int, Any], None] | None = None  # takes a worker's number and its report
        self._closed = asyncio.Event()  # the pool has no process and no descriptor left
        self._memory = BodyMemory(self.scheduler, max_result_size)
        self.arenas = self._memory.arenas
        self._alarm = Alarm(self._on_alarm, self.scheduler.postpone)
        self._now = self._alarm.now
        self.loop: asyncio.AbstractEventLoop | None = None

    # Start and end

    async def start(self) -> None:
        """Start the workers and wait until each is ready. WorkerStartError, with its traceback, if one cannot start."""
        self.loop = loop = asyncio.get_running_loop()
        self.first_start = loop.create_future()
        generation = self.scheduler.generation
        self.make_forkserver(generation, self.program)
        try:
            await self.start_forkserver(generation)
            self._carry_out(self.scheduler.open(monotonic()))
            await self.first_start
        except BaseException:
            await self.aclose(0)
            raise

    async def aclose(self, timeout: float | None) -> None:
        """Admit no more jobs, let the present ones finish within `timeout` seconds (None: no limit), kill the rest."""
        if self.scheduler.closed:
            await self._closed.wait()  # another task closes the pool
            return
        self.scheduler.closing = True
        self.swaps.cancel()
        countdown = LoopCountdown(inf if timeout is None else timeout)
        try:
            await self.wait_until(lambda: not any(self.scheduler.jobs()), timeout)
        finally:
            self._carry_out(self.scheduler.close(monotonic()))
            if not self.first_start.done():
                self.first_start.set_exception(PoolClosed("the pool was shut down while it started"))
                self.first_start.exception()  # mark it as retrieved: perhaps no task waits for it
            try:
                if timeout != 0:
                    seconds = min(ORDERLY_END, max(MIN_STEP_TIME, countdown.left()))
                    await self.wait_until(lambda: not self.scheduler.workers, seconds)
                await self._stop_processes(max(2 * MIN_STEP_TIME, countdown.left()))
            finally:
                countdown.cancel()
                self._alarm.cancel()
                self._memory.close()
                self._closed.set()

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

    async def swap(self, program: Program, label: str, *, drain: bool) -> None:
        if self.scheduler.closing:
            raise PoolClosed("the pool is shutting down")
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError(NOT_STARTED)
        await self.swaps.swap(self.program, program, label, drain=drain)

    def replace(self, number: int) -> None:
        self._carry_out(self.scheduler.replace(number, monotonic()))

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
                self.spawn(self._start_worker(each.worker))
            elif kind is Dismiss:
                each.worker.channel.shut_down()
            elif kind is Kill:
                self._kill(each.worker)
            else:
                assert kind is StopForkserver
                self.spawn(self.stop_forkserver(each.generation))

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
            log_record(worker.number, self.name, head.fields, worker.generation.label)
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
