"""`cpu_workers=0`: cpu handlers in a thread of the server, for debuggers, monkeypatch, coverage and notebooks.

The pool has the interface of ProcessPoolExecutor, and the queue, deadlines and lanes of external.py. Its one thread
opens the resources, runs one job at a time, and closes the resources, like a worker. The advantages of a process are
missing: a running job cannot be stopped, a crash ends the server, and computations slow down the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import Any

from msgspec.msgpack import Decoder

from ..core.errors import JobAbandoned, PoolClosed, WorkerStartError
from ..core.settings import DEFAULT_QUEUE_SIZE
from ..core.tracebacks import author_traceback
from .external import ExternalPool
from .frames import encode, message_types
from .job_reply import JobReply, JobStream
from .program import JobFunction, Program
from .questions import asking
from .remote_errors import error_text, remote_error
from .state import DONE, Job

log = logging.getLogger("tinysvc.executor")


class ThreadExecutor(Executor):
    """One daemon thread that runs calls in their order: a job that never ends does not keep the program alive."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")  # the message of the standard executors
        future: Future[Any] = Future()

        def call() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(Context().run(fn, *args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        self._calls.put(call)
        return future

    def _run(self) -> None:
        while call := self._calls.get():
            call()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        self._calls.put(None)


class StreamClosed(BaseException):
    """Raised in the thread of a stream that its reader has closed."""


class InProcessPool(ExternalPool):
    """Runs `program` in a thread of this process."""

    def __init__(
        self, program: Program, *, name: str = "default", queue_size: int = DEFAULT_QUEUE_SIZE, label: str = ""
    ) -> None:
        self._thread = ThreadExecutor(f"tinysvc cpu handlers ({name})")
        super().__init__(self._thread, program, name=name, queue_size=queue_size, label=label)
        self._decode_job = Decoder(message_types(program).job).decode
        self._run_job: JobFunction
        self._opened: ExitStack | None = None

    async def start(self) -> None:
        """Open the program. WorkerStartError if that fails."""
        self._loop = asyncio.get_running_loop()
        log.warning(
            "cpu_workers is 0: the cpu handlers of the pool %r run in a thread of the server, one at a time, for "
            "debugging and tests. A running job cannot be stopped, at its deadline or by a disconnect; a crash "
            "ends the server; computations slow down the event loop; max_jobs, max_memory, memory_limit and "
            "max_result_size are not applied",
            self.name,
        )
        try:
            await asyncio.wrap_future(self._thread.submit(self._open, self._program))
        except BaseException as error:
            self._thread.shutdown()
            raise WorkerStartError("the cpu resources cannot be opened", author_traceback(error)) from error

    def _open(self, program: Program, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Open the program, and close the one before unless the new one `is_wanted` no longer."""
        with ExitStack() as stack:
            run_job: Any = None
            for context in filter(None, (getattr(program, "preload", None), program)):
                run_job = stack.enter_context(context())
            if is_wanted():
                before, self._opened = self._opened, stack.pop_all()
                self._program, self._run_job = program, run_job
                if before is not None:
                    self._close(before)

    def _close(self, opened: ExitStack) -> None:
        try:
            opened.close()
        except Exception as error:
            log.error("the pool %r could not close its resources:\n%s", self.name, author_traceback(error))

    async def swap(self, program: Program, *, label: str = "", drain: bool = False) -> None:
        """As in ProcessPoolExecutor, between two jobs: the thread opens the new program and closes the old one.

        With `drain` it closes the old one first.
        """
        if self._queue.closing:
            raise PoolClosed("the pool is shutting down")
        gives_up = threading.Event()
        swapped = self._thread.submit(self._swap, program, label, drain, gives_up)
        try:
            await asyncio.wrap_future(swapped)
        except asyncio.CancelledError:
            gives_up.set()  # the thread may have begun
            raise

    def _swap(self, program: Program, label: str, drain: bool, gives_up: threading.Event) -> None:
        before = self._program
        try:
            if drain and self._opened is not None:
                opened, self._opened = self._opened, None
                self._close(opened)
            self._open(program, lambda: not gives_up.is_set())
        except BaseException as error:
            failure = WorkerStartError("the cpu resources of the new program cannot be opened", author_traceback(error))
            raise failure from error
        else:
            self.generation = label if self._program is program else self.generation
        finally:
            if self._opened is None:  # closed for a program that failed
                self._open(before)

    async def _close_programs(self) -> None:
        if self.is_at_work:
            log.warning("the pool %r ends while a job still runs, and leaves its resources open", self.name)
        elif self._opened is not None:
            opened, self._opened = self._opened, None
            await asyncio.wrap_future(self._thread.submit(self._close, opened))
        self._thread.shutdown()

    @property
    def max_workers(self) -> int:
        return 1

    @property
    def ready(self) -> int:
        """The thread is always ready, also while it runs an abandoned job."""
        return 1

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """As in ExternalPool. A stream that has begun ends at its next piece: perhaps nothing will read or close it."""
        super().abandon(job, even_running=even_running)
        if even_running and job.stream is not None:
            job.stream.abandon(JobAbandoned("the job was abandoned while it ran, and was stopped"))

    def _submit_job(self, job: Job) -> Future[Any]:
        return self._thread.submit(self._work, job, job.frame, job.body)

    def _work(self, job: Job, meta: bytes, body: bytes) -> JobReply | Exception | None:
        """Run one job in the thread. None if its result was a stream, which has ended."""
        try:
            asking.set(partial(self._ask, job))
            reply = self._run_job(self._decode_job(meta), body)
            if isinstance(reply.body, Iterator):
                self._stream(job, reply.meta, reply.body)
                return None
            content = bytes(reply.body) if isinstance(reply.body, bytearray) else reply.body
            return JobReply(self._decode_meta(encode(reply.meta)), content)
        except StreamClosed:
            return None
        except BaseException as error:  # SystemExit, too: a handler must not end the server
            return remote_error(error_text(error), b"")

    def _ask(self, job: Job, meta: Any, body: bytes) -> tuple[Any, bytes]:
        """Answer a question of the job, as the server answers that of a worker."""
        if self.answer is None:
            return None, b""
        return asyncio.run_coroutine_threadsafe(_awaited(self.answer(job, meta, body)), self._loop).result()

    def _stream(self, job: Job, meta: Any, pieces: Iterator[bytes]) -> None:
        gate = StreamGate()
        stream = JobStream(gate, gate.close)
        self._call_soon(self._start_stream, job, JobReply(self._decode_meta(encode(meta)), stream))
        ended: Exception | None = None
        try:
            for piece in pieces:
                gate.wait()
                self._call_soon(stream.feed, bytes(piece))
        except StreamClosed:
            raise
        except BaseException as error:
            ended = remote_error(error_text(error), b"")
        finally:
            if isinstance(pieces, Generator):
                pieces.close()
            self._call_soon(stream.end, ended)

    def _call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop has ended
            raise StreamClosed from None

    def _start_stream(self, job: Job, reply: JobReply) -> None:
        if job.state is DONE or job.future.done():
            assert isinstance(reply.body, JobStream)
            self._loop.create_task(reply.body.aclose())
            return
        job.stream = reply.body
        job.settled = monotonic()
        job.future.set_result(reply)

    def _reply(self, result: Any) -> Any:
        return result


async def _awaited(answer: Awaitable[tuple[Any, bytes]]) -> tuple[Any, bytes]:
    return await answer


class StreamGate:
    """The source of a stream in a thread: the thread waits while the reader is behind."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._closed = False

    def pause_reading(self) -> None:
        if not self._closed:  # pieces may still be on their way
            self._open.clear()

    def resume_reading(self) -> None:
        self._open.set()

    def close(self) -> None:
        """The reader has closed the stream."""
        self._closed = True
        self._open.set()

    def wait(self) -> None:
        """Wait until the reader takes more. Raises StreamClosed."""
        self._open.wait()
        if self._closed:
            raise StreamClosed
