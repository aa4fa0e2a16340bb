"""The pool as a concurrent.futures.Executor: `submit`, `map` and `shutdown`, from any thread.

    any thread      submit ──> inbox ─┐                           ┌──> JobFuture              cancel ─┐
    the pool's loop                   └──> scheduler ──> worker ──┘        scheduler <────────────────┘

The pool's loop is the one that has started the pool; without one, a loop in an own thread starts at the first `submit`.
All decisions are made on that loop. Other threads only append to the inbox and wake the loop.

The thread refers to the `Bridge`, never to the pool object of the user. So an unreferenced pool is collected: submitted
jobs still finish, then the workers exit. The same happens to each remaining pool at the exit of the interpreter.

Two differences from the standard library are on purpose: `cancel()` also stops a running job, and a worker that dies
breaks its own job only.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from contextlib import suppress
from functools import partial
from itertools import islice
from pickle import HIGHEST_PROTOCOL, dumps
from typing import Any, ParamSpec, TypeVar

from ..core.errors import NoWorkers, PoolClosed, RemoteError, WorkerDied, WorkerStartError
from .dispatcher import Dispatcher
from .frames import Call
from .importable import refuse_unimportable
from .job_reply import JobReply, unpickled
from .program import call_each
from .state import Job, JobState

P = ParamSpec("P")
T = TypeVar("T")


class BrokenWorker(WorkerDied, BrokenProcessPool):
    """WorkerDied that is also the standard library's exception for it."""


class BrokenStart(WorkerStartError, BrokenProcessPool):
    """WorkerStartError that is also the standard library's exception for it."""


class JobFuture(Future[T]):
    """The future of a submitted job.

    For the standard library it is `pending` until the job ends: it can be cancelled until then.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.call = b""  # function and arguments, pickled; empty when the job is admitted
        self.job: Job | None = None

    def running(self) -> bool:
        job = self.job
        return not self.done() and job is not None and job.state is JobState.RUNNING

    def cancel(self) -> bool:
        """Cancel the job unless it has ended. If it runs, its worker is killed and replaced."""
        if not super().cancel():
            return False
        self._bridge.call_soon(self._bridge.on_cancelled, self)
        return True


class Bridge:
    """Connects the threads that submit jobs with the loop of one pool."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._lock = threading.RLock()  # reentrant: the garbage collector may finalize this pool within `submit`
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opened = False  # the pool admits jobs
        self._closing = False  # `submit` refuses jobs
        self._cancels = False  # cancel all jobs but the first ones, as soon as these have started
        self._shutdown_called = asyncio.Event()
        self._ended = threading.Event()
        self._broken: BrokenStart | None = None
        self._inbox: deque[JobFuture[Any]] = deque()
        self._unfinished: set[JobFuture[Any]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._finisher: asyncio.Task[None] | None = None

    # In any thread

    @property
    def in_thread(self) -> bool:
        return self._thread is not None

    def submit(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[T]:
        self._refuse_if_closed()  # before the lock, which may stay locked in a forked child
        future: JobFuture[T] = JobFuture(self)
        try:
            refuse_unimportable(fn)
            future.call = dumps((fn, args, kwargs), HIGHEST_PROTOCOL)
        except Exception as error:
            future.set_exception(error)
        with self._lock:
            self._refuse_if_closed()
            if not future.done():
                self._ensure_loop()
                self._unfinished.add(future)
                self._inbox.append(future)
                if len(self._inbox) == 1:  # otherwise the loop is awake, or waits for room
                    self.call_soon(self._admit_waiting)
        return future

    def _refuse_if_closed(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(f"the pool belongs to process {self._pid}; a forked child must make its own pool")
        if self._broken is not None:
            raise self._broken
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if self._closing or self._dispatcher.scheduler.closing or (self._loop is not None and self._loop.is_closed()):
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _ensure_loop(self) -> None:
        if self._loop is None and self._dispatcher.loop is not None:
            self._loop, self._opened = self._dispatcher.loop, True
        elif self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._start_thread(self._loop)

    def _start_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        # A daemon: `_at_exit` waits for it, and only Ctrl-C during that wait leaves it running.
        name = f"tinysvc pool {self._dispatcher.name}"
        self._thread = threading.Thread(target=self._run, args=(loop,), name=name, daemon=True)
        _in_threads.add(self)
        try:
            self._thread.start()
        except RuntimeError:  # the limit of threads is reached, or the interpreter exits
            _in_threads.discard(self)
            self._loop = self._thread = None
            loop.close()
            raise

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """Let the pool's loop call the callback."""
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended, and the pool with it
            self._loop.call_soon_threadsafe(callback, *args)

    def shutdown(self, wait: bool = True, cancel_futures: bool = False, even_running: bool = False) -> None:
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closing = True
            loop = self._loop = self._loop or self._dispatcher.loop
        if loop is None:
            self._dispatcher.scheduler.closing = True
            return
        self.call_soon(self._on_shutdown, cancel_futures, even_running)
        if wait and (self._thread or loop.is_running()) and not _runs_here(loop):
            (self._thread.join if self._thread else self._ended.wait)()

    # In the pool's own thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve())
        finally:
            with self._lock:
                _in_threads.discard(self)

    async def _serve(self) -> None:
        try:
            await self._dispatcher.start()
            self._opened = True
            self._admit_waiting()
            if self._cancels:
                self._cancel_all(even_running=False)
            await self._shutdown_called.wait()
            await self._finish()
        except Exception as error:
            self._broken = _as_broken(error)
        finally:
            with self._lock:
                self._closing = True  # `submit` adds no job from here on
            await self._dispatcher.aclose(0)
            for future in list(self._unfinished):
                self._end(future, None, self._broken or PoolClosed("the pool was shut down before the job ended"))

    # On the pool's loop

    def _admit_waiting(self) -> None:
        """Admit submitted jobs in their order, while the queue has room."""
        while self._inbox and self._opened and self._has_room():
            future = self._inbox.popleft()
            if future in self._unfinished:
                self._admit(future)
        if self._inbox and self._opened and self._feeder is None:
            self._feeder = asyncio.get_running_loop().create_task(self._feed())

    def _has_room(self) -> bool:
        scheduler = self._dispatcher.scheduler
        return scheduler.closing or bool(scheduler.free) or scheduler.waiting < scheduler.queue_size

    async def _feed(self) -> None:
        """Admit jobs whenever there is room: the queue is bounded, the inbox is not."""
        while self._inbox:
            await self._dispatcher.wait_until(self._has_room)
            self._admit_waiting()
        self._feeder = None

    def _admit(self, future: JobFuture[Any]) -> None:
        try:
            future.job = self._dispatcher.submit_job(Job([], future.call, kind=Call))
            future.job.future.add_done_callback(partial(self._settle, future))
        except Exception as error:
            self._end(future, None, error)
        future.call = b""

    def _settle(self, future: JobFuture[Any], ended: asyncio.Future[JobReply]) -> None:
        result, error = None, ended.exception()
        if error is None:
            try:
                result = unpickled(ended.result())
            except BaseException as caught:
                error = caught
        self._end(future, result, error)

    def _end(self, future: JobFuture[Any], result: Any, error: BaseException | None) -> None:
        """End the future, once. If another thread has just cancelled it, it stays cancelled."""
        if future not in self._unfinished:
            return
        self._forget(future)
        try:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(_as_standard(error))
        except InvalidStateError:
            future.set_running_or_notify_cancel()

    def on_cancelled(self, future: JobFuture[Any]) -> None:
        """The future was cancelled: stop its job, and notify the waiters."""
        if future not in self._unfinished:
            return
        if future.job is not None:
            self._dispatcher.cancel(future.job)
        self._forget(future)
        future.set_running_or_notify_cancel()

    def _forget(self, future: JobFuture[Any]) -> None:
        self._unfinished.discard(future)
        future.job = None
        self._dispatcher.changed.set()

    def _on_shutdown(self, cancel_futures: bool, even_running: bool) -> None:
        if even_running or (cancel_futures and self._opened):
            self._cancel_all(even_running)
        self._cancels |= cancel_futures
        self._shutdown_called.set()
        if self._thread is None and self._finisher is None:
            self._finisher = asyncio.get_running_loop().create_task(self._finish())

    def _cancel_all(self, even_running: bool) -> None:
        for future in list(self._unfinished):
            if even_running or not future.running():
                future.cancel()

    async def _finish(self) -> None:
        try:
            await self._dispatcher.wait_until(lambda: not self._unfinished)
            await self._dispatcher.aclose(None)
        finally:
            self._ended.set()


class FuturesExecutor(Executor):
    """The part of a pool that is a concurrent.futures.Executor. Its methods may be called in any thread."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._bridge = Bridge(dispatcher)
        weakref.finalize(self, self._bridge.shutdown, wait=False).atexit = False  # see _at_exit

    @property
    def in_thread(self) -> bool:
        """Whether the pool's loop runs in its own thread, as its first use was `submit` without a running loop."""
        return self._bridge.in_thread

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn(*args, **kwargs)` in a worker. A pool that runs on no event loop starts one in a thread.

        Any number of jobs may be submitted: `queue_size` does not count them.

        Args:
            fn: A function that can be pickled.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            A future. Its `cancel` stops a running job, too.

        Raises:
            RuntimeError: The pool was shut down, or belongs to another process.
        """
        return self._bridge.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[T]:
        """Call a function for each item, as `Executor.map` does. Closing the iterator stops the remaining jobs.

        Args:
            fn: A function that can be pickled.
            *iterables: One iterable for each parameter of the function.
            timeout: Seconds for the whole iteration; None for no limit.
            chunksize: Items that one job takes.
            **options: Further options of `Executor.map` in this Python version.

        Yields:
            The results, in the order of the items.

        Raises:
            ValueError: `chunksize` is less than 1.
            TimeoutError: `timeout` has passed.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be >= 1, not {chunksize}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **options)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return _items(super().map(partial(call_each, fn), chunks, timeout=timeout, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no new jobs, and end when the others have ended. On the pool's own event loop use `await pool.aclose()`.

        Args:
            wait: Wait until the workers have ended; on the pool's own event loop it never waits.
            cancel_futures: Cancel the jobs that do not run yet.
        """
        self._bridge.shutdown(wait, cancel_futures)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool | None:
        """Wait for all jobs. After Ctrl-C, stop them instead, as their results are no longer needed."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._bridge.shutdown(True, cancel_futures=interrupted, even_running=interrupted)
        return None


def _chunks(rows: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    while chunk := tuple(islice(rows, size)):
        yield chunk


def _items(chunks: Iterator[list[T]]) -> Iterator[T]:
    """The items of all chunks. Keeps no reference to an item that it has yielded."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _as_standard(error: BaseException) -> BaseException:
    """The standard library's exception for the error, if there is one."""
    if isinstance(error, WorkerDied):
        return BrokenWorker(error.message, error.exitcode)
    if isinstance(error, NoWorkers):
        return _as_broken(error)
    original, remote = error, error.__cause__
    if isinstance(error, RemoteError) and remote is not None and error.traceback:
        original, remote = remote, error  # SystemExit and the like, which would end the loop
    if isinstance(remote, RemoteError):
        original.__cause__ = _RemoteTraceback(f'\n"""\n{remote.traceback}\n"""')  # type: ignore[arg-type]
    return original


def _as_broken(error: Exception) -> BrokenStart:
    if isinstance(error, WorkerStartError):
        return BrokenStart(error.message, error.traceback)
    broken = BrokenStart(f"the pool cannot start: {error}")
    broken.__cause__ = error
    return broken


_exiting = False
_in_threads: set[Bridge] = set()


def _at_exit() -> None:
    """As in the standard library: submitted jobs finish before the interpreter exits."""
    global _exiting
    _exiting = True
    for bridge in list(_in_threads):
        bridge.shutdown()


# Not atexit: functions that atexit calls may still submit jobs, which must be refused.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
