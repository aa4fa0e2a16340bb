"""The pool's hands: what the books decide, done on an event loop; what happens, entered into the books.

    books      decide who runs what, and when somebody must die
    dispatcher sends frames, starts and kills processes, sets the alarm, settles futures
    processes  the forkserver and the channels

Everything here runs on the loop. The events (a job comes, a frame comes, a process ends, the alarm rings) are plain
methods: each reads the clock, calls the books once, and is over; nothing awaits between a decision and its effect.
The clock is `time.monotonic`; uvloop's own counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from ..core.cores import available_cores
from ..core.errors import HTTPError, PoolClosed, RemoteError, WorkerStartError
from ..core.settings import DEFAULT_POOL
from ..core.shutdown import CLOCK_INTERVAL, MIN_STEP_TIME, STALL_THRESHOLD, LoopCountdown, awake_timeout
from .arena import SPARE, Arena, Arenas
from .channel import Channel, End, Forkserver
from .descendants import new_mark
from .scheduler import DYING, LEAVING, ORDERLY_END, PAST_DEADLINE, STARTING, WENT_ON, Books, Job, Lane, Worker
from .worker import (
    CHUNK,
    END,
    ERROR,
    FAILED,
    HANDLE,
    KEPT,
    LOG,
    PICKLED,
    READY,
    RESULT,
    STREAM,
    Program,
    WorkerOptions,
    frame,
    open_standard_streams,
    unpack,
)
from .worker_logs import log_record, manner_of_death, one_line

log = logging.getLogger("tinysvc.executor")

STREAM_HIGH_WATER = 256 * 1024
"""Unread bytes of a stream before its worker's socket is left unread, and so its generator waits."""

STALL_GRACE = 0.1
"""Seconds after a standstill (core/shutdown.py) in which the loop reads what workers sent before it kills one."""

MAX_LAST_WORDS = 32 * 1024
"""Bytes of a crashed worker's Python stack that reach the log."""


class JobReply(NamedTuple):
    """What came back: the program's small value, and the body: bytes, a mapping where it is big, or a stream."""

    meta: Any
    body: bytes | memoryview | JobStream


class Link(NamedTuple):
    """What the server holds of one worker: its channel, and the files that it writes a big result or last words to."""

    channel: Channel
    last_words: Arena


class JobStream:
    """The pieces a job yields, as an async iterator. `aclose` before its end kills the job."""

    def __init__(self, job: Job, channel: Channel, abandon: Callable[[], None]) -> None:
        self._job = job
        self._channel = channel
        self._abandon = abandon
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > STREAM_HIGH_WATER and not self._paused:
            self._paused = True
            self._channel.transport.pause_reading()
        self._wake()

    def end(self, error: Exception | None) -> None:
        """No more pieces come. The channel is not ours any more."""
        self._ended, self._error = True, error
        self._resume()
        self._wake()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._channel.transport.resume_reading()

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
        if self._held < STREAM_HIGH_WATER // 2:
            self._resume()
        return piece

    async def aclose(self) -> None:
        self._pieces.clear()
        if not self._ended:
            self._abandon()


class Alarm:
    """One timer for many deadlines, set to the earliest.

    While it is set it looks at the clock each BEAT. Where the loop was held, or the process stopped with its workers,
    `put_off(seconds)` is called before `ring`: all deadlines come so much later, or a pool would kill healthy workers
    for the time in which they did not run.
    """

    def __init__(self, ring: Callable[[], None], put_off: Callable[[float], None]) -> None:
        self._ring = ring
        self._put_off = put_off
        self._when = math.inf
        self._looked = self._look = math.inf  # when the timer was set, and to which time
        self._timer: asyncio.Handle | None = None

    def set(self, when: float) -> None:
        """Ring at this time of `time.monotonic`, if not earlier."""
        if when < self._when:
            self._when = when
            if when < self._look:
                self._set_timer(monotonic())

    def cancel(self) -> None:
        self._when = self._look = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def now(self) -> float:
        """The time, after `put_off` where the timer is much too late."""
        now = monotonic()
        if now > self._look + STALL_THRESHOLD:
            seconds = now - self._looked + STALL_GRACE
            self._when += seconds
            self._set_timer(now)
            self._put_off(seconds)
        return now

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looked, self._look = now, min(self._when, now + CLOCK_INTERVAL)
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._look - now), self._on_time)

    def _on_time(self) -> None:
        now = self.now()
        if now < self._when:
            self._set_timer(now)
        else:
            self.cancel()
            self._ring()


class Dispatcher:
    """One pool at work on one event loop. `books` may be read by everybody, and written by nobody else."""

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
    ) -> None:
        open_standard_streams()  # before a loop takes the number of one
        self.name = name
        self.books = Books(self, size, queue_size, max_jobs, max_memory)
        self.changed = asyncio.Event()  # set whenever a job or a worker has ended, or a worker is ready
        self.warnings: list[str] = []
        self._program = program
        self._max_result_size = max_result_size
        self._memory_limit = memory_limit
        self._gone = asyncio.Event()  # nothing of the pool is left
        self.arenas = Arenas()
        self._alarm = Alarm(lambda: self.books.tick(monotonic()), self.books.put_off)
        self._now = self._alarm.now  # where a job that waits may be found too late
        self._trimming: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._first_start: asyncio.Future[None]
        self._forkserver: Forkserver

    # Life

    async def start(self) -> None:
        """Start the workers and wait until each is ready. WorkerStartError, with its traceback, if one cannot be."""
        self.loop = asyncio.get_running_loop()
        self._first_start = self.loop.create_future()
        level = logging.getLogger().getEffectiveLevel()
        options = WorkerOptions(level, self._max_result_size, self.books.max_memory > 0, self._memory_limit, new_mark())
        threads = max(1, available_cores() // self.books.size)
        self._forkserver = Forkserver(self._program, options, threads, self._on_end, self._on_forkserver_lost)
        try:
            await self._forkserver.start()
            self._warn()
            if self.books.closed:
                await self._forkserver.stop()
                raise PoolClosed("the pool was shut down while it started")
            self.books.open(monotonic())
            await self._first_start
        except BaseException:
            await self.aclose(0)
            raise

    def _warn(self) -> None:
        """Report what the workers inherit and cannot use."""
        self.warnings = self._forkserver.warnings
        for warning in self.warnings:
            log.warning("%s%s", "" if self.name == DEFAULT_POOL else f"the pool {self.name}: ", warning)

    async def aclose(self, timeout: float | None) -> None:
        """Take no new jobs, let those there are finish for `timeout` seconds (None: no end), then kill the rest."""
        if self.books.closed:
            await self._gone.wait()  # somebody else is at it
            return
        self.books.closing = True
        budget = LoopCountdown(inf if timeout is None else timeout)
        try:
            await self.wait_until(lambda: not any(self.books.jobs()), timeout)
        finally:
            self.books.close(monotonic())
            if not self._first_start.done():
                self._first_start.set_exception(PoolClosed("the pool was shut down while it started"))
                self._first_start.exception()  # nobody may be there to hear it
            try:
                if timeout != 0:
                    seconds = min(ORDERLY_END, max(MIN_STEP_TIME, budget.left()))
                    await self.wait_until(lambda: not self.books.workers, seconds)
                await self._stop(max(2 * MIN_STEP_TIME, budget.left()))
            finally:
                budget.cancel()
                self._gone.set()

    async def _stop(self, seconds: float) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self.books.can_start:
            await self._forkserver.stop(seconds)
        for worker in list(self.books.workers.values()):
            self._on_end(worker.number, End(None, "was ended with the pool"))
        self._alarm.cancel()
        if self._trimming is not None:
            self._trimming.cancel()
        self.arenas.close()

    async def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        try:
            async with awake_timeout(timeout):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            pass

    # Jobs come

    def admit(
        self,
        kind: int,
        meta: Any,
        body: bytes | Arena,
        timeout: float | None = None,
        lane: Lane | None = None,
        key: Hashable = None,
    ) -> Job:
        """A new job, running or queued. PoolError if it can be neither; TypeError if `meta` is not for MessagePack."""
        books = self.books
        now = monotonic()
        job = Job(books.next_number(), lane or books.open_lane, timeout, now, key)
        job.kind = kind
        # The frame is made now: what cannot be encoded never takes a worker.
        if isinstance(body, Arena):
            job.arena, job.frame = body, frame((job.number, kind, meta, body.size))
        else:
            job.body, job.frame = body, frame((job.number, kind, meta, 0), len(body))
        job.future = self.loop.create_future()
        books.admit(job, now)
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        self.books.abandon(job, monotonic(), even_running=even_running)

    def cancel(self, job: Job) -> None:
        self.books.cancel(job, monotonic())

    # The books' hands

    def start_worker(self, worker: Worker) -> None:
        self._spawn(self._start_worker(worker))

    async def _start_worker(self, worker: Worker) -> None:
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                ours.setblocking(False)
                try:
                    channel = self._channel(worker, ours)
                    await self.loop.create_unix_connection(lambda: channel, sock=ours)
                except BaseException:
                    ours.close()
                    raise
                assert channel.arena is not None
                descriptors = [theirs.fileno(), channel.arena.descriptor, worker.link.last_words.descriptor]
                self._forkserver.fork(worker.number, descriptors)
        except OSError as error:  # out of descriptors, say
            self._on_end(worker.number, End(None, f"could not be started: {error}"))

    def _channel(self, worker: Worker, ours: socket.socket) -> Channel:
        channel = Channel(
            ours, partial(self._on_frame, worker), partial(self._on_closed, worker), self._max_result_size
        )
        channel.arena = Arena()
        worker.link = Link(channel, Arena())
        return channel

    def send(self, worker: Worker, job: Job) -> None:
        channel = worker.link.channel
        try:
            if job.arena is None and channel.arena is not None:
                channel.send(job.frame, job.body)
            else:
                self._send_descriptors(channel, job)
        except OSError as error:
            self.loop.call_soon(self._on_closed, worker, f"could not be given a job: {error}")
        job.frame = job.body = b""

    def _send_descriptors(self, channel: Channel, job: Job) -> None:
        """With an arena that holds the body, or a new one for a big result where the last was used, or both."""
        descriptors = []
        if job.arena is not None:
            descriptors.append(job.arena.descriptor)
        if channel.arena is None:
            try:
                channel.arena = channel.arenas.take()
                descriptors.append(channel.arena.descriptor)
            except OSError:
                pass  # out of descriptors: a big result then comes through the socket
        channel.send(job.frame, job.body, descriptors)

    def dismiss(self, worker: Worker) -> None:
        worker.link.channel.leave()

    def kill(self, worker: Worker) -> None:
        self._forkserver.kill(worker.number, late=worker.why == PAST_DEADLINE)

    def settle(self, job: Job, outcome: JobReply | Exception) -> None:
        self.changed.set()
        if job.arena is not None:
            if job.kind == HANDLE and isinstance(outcome, JobReply):
                self.arenas.give_back(job.arena)
                self._trim_later()
            else:
                job.arena.close()
        if job.stream is not None:
            job.stream.end(outcome if isinstance(outcome, Exception) else None)
        elif job.future.done():
            pass  # cancelled by who waited
        elif isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)

    def wake_at(self, when: float) -> None:
        self._alarm.set(when)

    # Memory that is kept for the next big body

    def _was_read(self, arenas: Arenas, arena: Arena) -> None:
        """All have let go of a big result, the last of them in whatever thread."""
        arenas.give_back(arena)
        if self._trimming is None and not self.books.closed:
            with suppress(RuntimeError):  # the loop has ended, and the pool with it
                self.loop.call_soon_threadsafe(self._trim_later)

    def _trim_later(self) -> None:
        if self._trimming is None and not self.books.closed:
            self._trimming = self.loop.call_later(SPARE, self._trim)

    def _trim(self) -> None:
        self._trimming = None
        links = [worker.link for worker in self.books.workers.values() if worker.link is not None]
        kept = [self.arenas, *(link.channel.arenas for link in links)]
        any(each.trim() for each in kept)  # one at a time
        if any(map(len, kept)):
            self._trim_later()

    # What happens

    def _on_frame(self, worker: Worker, head: Any, body: bytes) -> None:
        if worker.state in (LEAVING, DYING):
            return
        try:
            number, kind, meta, size, memory = head
        except (TypeError, ValueError):
            self._broke_the_rules(worker, f"sent a frame with the head {head!r}")
            return
        job = self.books.held_by(worker, number)
        if job is not None and kind == (RESULT if job.kind == HANDLE else PICKLED) and job.stream is None:
            content = body if not size else self._take_arena(worker, size)
            if content is not None:
                self.books.done(worker, job, JobReply(meta, content), self._now(), memory=memory)
        elif kind == LOG:
            log_record(worker.number, self.name, meta)
        elif kind == READY:
            self._on_ready(worker)
        elif kind == FAILED and worker.state is STARTING:
            worker.failure = str(meta)
        elif job is None:
            self._broke_the_rules(worker, f"sent a frame for job {number}, but has {worker.job!r}")
        else:
            self._on_part(worker, job, kind, meta, body, memory)

    def _on_ready(self, worker: Worker) -> None:
        if not self.books.became_ready(worker, self._now()):
            self._broke_the_rules(worker, "said a second time that it is ready")
        elif not self._first_start.done() and self.books.ready == self.books.size:
            self._first_start.set_result(None)
        self.changed.set()

    def _on_part(self, worker: Worker, job: Job, kind: Any, meta: Any, body: bytes, memory: int) -> None:
        """A frame about a job that is not its plain result: an error, or something of a stream."""
        now = self._now()
        if kind == CHUNK and job.stream is not None:
            job.stream.feed(body)
        elif kind == STREAM and job.stream is None:
            stream = JobStream(job, worker.link.channel, partial(self.abandon, job, even_running=True))
            if job.future.done():
                self.books.cancel(job, now)
                return
            job.settle(now)
            job.future.set_result(JobReply(meta, stream))
            job.stream = stream
        elif kind == KEPT and job.arena is not None:
            job.arena.close()
            job.arena = None
        elif kind == END and job.stream is not None:
            self.books.done(worker, job, None, now, memory=memory)
        elif kind == ERROR and isinstance(meta, list) and len(meta) == 4:
            type_name, message, traceback, leaving = meta
            # What a program's worker sends is never unpickled: nothing of it may run here.
            error = remote_error(type_name, message, traceback, b"" if job.kind == HANDLE else body)
            self.books.done(worker, job, error, now, memory=memory, poisoned=bool(leaving))
        else:
            self._broke_the_rules(worker, f"sent a frame of kind {kind} for {job!r}")

    def _take_arena(self, worker: Worker, size: Any) -> memoryview | None:
        """The big result, in the arena the worker had; it gets another with its next job. None if it lied about it."""
        channel = worker.link.channel
        arena, channel.arena = channel.arena, None
        held = os.fstat(arena.descriptor).st_size if arena is not None else 0
        if not isinstance(size, int) or not 0 < size <= min(held, self._max_result_size):
            self._broke_the_rules(worker, f"sent a result of {size} bytes in an arena that holds {held}")
            return None
        arena.size = size
        try:
            view: memoryview = arena.view()
        except OSError:  # out of descriptors: a mapping holds one
            return memoryview(os.pread(arena.descriptor, size, 0))
        weakref.finalize(view.obj, self._was_read, channel.arenas, arena).atexit = False
        return view

    def _broke_the_rules(self, worker: Worker, how: str) -> None:
        how = one_line(how)
        worker.link.channel.fail(how)
        self.books.kill(worker, how, monotonic())

    def _on_closed(self, worker: Worker, broken_rule: str) -> None:
        self.books.lost_channel(worker, monotonic(), broken_rule)

    def _on_end(self, number: int, end: End) -> None:
        """The process of worker `number` has ended, or could not be forked."""
        worker = self.books.workers.get(number)
        if worker is None:
            return
        if end.exit_code is not None and not end.killed and (end.exit_code < 0 or worker.why == WENT_ON):
            worker.why = ""  # it had ended before our SIGKILL came, and not as we had closed its channel
        stack = self._last_words(worker)
        late = worker.why == PAST_DEADLINE
        if worker.why and not late:
            stack = ""
        how, report = f"worker {number} {end.text}", ""
        if not end.text:
            manner = manner_of_death(
                end.exit_code, worker.why, out_of_memory=end.out_of_memory, peak=end.peak, stack=stack
            )
            how, _, report = f"worker {number} {manner}".partition("; ")
        unexpected = worker.job is None and not worker.why and worker.state is not LEAVING
        books, started = self.books, worker.started
        books.died(worker, self._now(), how, end.exit_code, f"; {report}" if report else "")
        self.changed.set()
        if books.closing:
            pass
        elif started and (unexpected or late):
            log.warning("%s%s", how, f"; {report}" if late else "")
        elif not started:
            self._on_failed_start(how)

    def _last_words(self, worker: Worker) -> str:
        """What it wrote as it crashed. All that is held of it is let go of."""
        link, worker.link = worker.link, None
        if link is None:
            return ""
        words = os.pread(link.last_words.descriptor, MAX_LAST_WORDS, 0)
        link.last_words.close()
        link.channel.close()
        return words.decode(errors="replace")

    def _on_failed_start(self, how: str) -> None:
        books = self.books
        if not self._first_start.done():
            whose = "a worker" if self.name == DEFAULT_POOL else f"a worker of the pool {self.name}"
            self._first_start.set_exception(WorkerStartError(f"{whose} cannot start", books.last_failure))
        else:
            log.error("%s; trying again in %.1f s\n%s", how, books.pause, books.last_failure)

    def _on_forkserver_lost(self) -> None:
        if self.books.closed:
            return
        log.error("the forkserver has died, and the workers with it; starting another")
        self.books.lost_forkserver()
        for number in list(self.books.workers):
            self._on_end(number, End(-signal.SIGKILL, killed=True))
        self._spawn(self._restart_forkserver())

    async def _restart_forkserver(self) -> None:
        books = self.books
        while not books.closed:
            try:
                await self._forkserver.start()
            except (WorkerStartError, OSError) as error:
                books.start_failed(str(error), monotonic())
                log.error("the forkserver cannot start; trying again in %.1f s: %s", books.pause, error)
                await asyncio.sleep(books.pause)
            else:
                self._warn()
                books.open(monotonic())
                return

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def unpacked(reply: JobReply) -> Any:
    """The result of a job that travelled as a pickle."""
    assert not isinstance(reply.body, JobStream)
    try:
        return unpack(reply.meta, reply.body)
    except BaseException as error:  # one that raises SystemExit would end the loop
        raise RemoteError(type(error).__name__, f"the result cannot be unpickled: {error}", "") from error


def remote_error(type_name: str, message: str, traceback: str, body: bytes, *, only_http: bool = False) -> Exception:
    """RemoteError; or the exception itself, caused by the RemoteError, where it could be pickled as it is.

    An HTTPError is always one. `only_http`: all others are RemoteErrors, whose `original` error handlers are asked for.
    """
    remote = RemoteError(type_name, message, traceback)
    if body:
        try:
            original, is_exact = unpack((), body)
        except BaseException:
            return remote
        if not isinstance(original, Exception) or isinstance(original, StopIteration):
            remote.__cause__ = original  # it would end the loop (SystemExit), or no future takes it (StopIteration)
        elif isinstance(original, HTTPError) or (is_exact and not only_http):
            original.__cause__ = remote
            return original
        else:
            remote.original = original
    return remote
