"""A pool of worker processes for an event loop, whose jobs can be stopped at any time. Without HTTP.

    run / stream / submit_job ────> scheduler ──> an idle worker ──> result, error, or death
    submit / map (futures.py)       (FIFO,        (one socketpair each,
                                    bounded)       at most one job on it)

This file is the pool's interface; the rest is in pool/. Begin with scheduler.py, which decides and explains the theory.
dispatcher.py carries out its decisions. channel.py and worker_channel.py are the two ends of the socketpairs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from .core.cores import available_cores
from .core.settings import DEFAULT_MAX_RESULT_SIZE, DEFAULT_QUEUE_SIZE
from .pool.answers import AnswerFunction
from .pool.arena import BIG, Arena, Arenas
from .pool.dispatcher import NOT_STARTED, Dispatcher
from .pool.frames import Call, CallStream, pickle_pieces
from .pool.futures import FuturesExecutor
from .pool.importable import refuse_unimportable
from .pool.job_reply import JobReply, JobStream, unpickled
from .pool.observer import PoolObserver
from .pool.program import Program, SharedMemory, function_program
from .pool.state import START_LIMIT, Job, Lane, SlotState, WorkerStatus, status_of

P = ParamSpec("P")
T = TypeVar("T")


class ProcessPoolExecutor(FuturesExecutor):
    """Runs functions in worker processes: from an event loop (`await pool.run(...)`), or from plain code (`submit`).

    It is a `concurrent.futures.Executor`. As with each process pool, functions and arguments must be picklable.

    *Deadlines.* After `timeout=` seconds a waiting job is dropped (`DeadlineInQueue`), and a running one is killed
    (`DeadlineExceeded`).

    *Cancellation.* Cancelling the task that awaits a job drops the job, or kills it unless it ends within the time that
    a replacement of its worker takes.

    *Errors.* `run` and `submit` raise the exception of the function if it can be pickled, else `RemoteError`. A worker
    that dies fails its own job only (`WorkerDied`).

    *Resources.* One socketpair and two anonymous memory areas for each worker, and one forkserver. No named semaphores
    or shared memory. A thread only where `submit` is used without a running loop.

    Args:
        max_workers: Worker processes. None: the cores that this process may use.
        initializer: Function that each worker calls before its first job.
        initargs: Arguments of `initializer`.
        queue_size: Jobs that may wait for a worker (1000); then `run` raises `QueueFull`.
        max_result_size: Largest result in bytes (64 MiB).
        max_jobs: Jobs after which a worker is replaced; 0 for never.
        max_memory: Bytes (RSS) that a worker may hold after a job before it is replaced; 0 for any.
        memory_limit: Bytes of address space of a worker (RLIMIT_AS); beyond it a job fails with MemoryError. 0 for any.
        program: Replaces `initializer` for a server, which sends frames instead of functions.
        inherited: Descriptors that all processes of the pool hold while they live, such as that of a locked file.
        shared: Memory that each worker shares with the server.
        label: Label of the first program: see `generation`.
        start_limit: Seconds for a worker to become ready (600), and for a new program to load.
        name: Name in log lines.

    Raises:
        ValueError: `max_workers` is less than 1, or `start_limit` is not greater than 0.
        TypeError: `initializer` cannot be called.

    Example:
        ```python
        import asyncio

        from tinysvc import ProcessPoolExecutor

        async def main() -> None:
            async with ProcessPoolExecutor(1) as pool:
                assert await pool.run(pow, 2, 10, timeout=5) == 1024

        if __name__ == "__main__":
            asyncio.run(main())
        ```
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        queue_size: int = DEFAULT_QUEUE_SIZE,
        max_result_size: int = DEFAULT_MAX_RESULT_SIZE,
        max_jobs: int = 0,
        max_memory: int = 0,
        memory_limit: int = 0,
        program: Program | None = None,
        inherited: Sequence[int] = (),
        shared: SharedMemory | None = None,
        label: str = "",
        start_limit: float = START_LIMIT,
        name: str = "default",
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        if not start_limit > 0:
            raise ValueError(f"start_limit must be greater than 0, not {start_limit}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        self.name = name
        self.max_workers = max_workers or available_cores()
        self.queue_size = queue_size
        self._dispatcher = Dispatcher(
            program or partial(function_program, initializer, initargs),
            name=name,
            size=self.max_workers,
            queue_size=queue_size,
            max_result_size=max_result_size,
            max_jobs=max_jobs,
            max_memory=max_memory,
            memory_limit=memory_limit,
            inherited=inherited,
            shared=shared,
            label=label,
            start_limit=start_limit,
        )
        self._started = False
        super().__init__(self._dispatcher)

    # Start and end

    async def start(self) -> None:
        """Start the workers and wait until each is ready. `async with` calls it.

        Raises:
            WorkerStartError: A worker cannot be made ready; the error has its traceback.
            RuntimeError: The pool was started before.
        """
        if self._started or self.in_thread or self._dispatcher.scheduler.closing:
            raise RuntimeError("a pool can be started once; make another one")
        self._started = True
        await self._dispatcher.start()

    async def aclose(self, timeout: float | None = 10.0) -> None:
        """Take no new jobs, wait for the others, then kill those that still run. `async with` calls it.

        Args:
            timeout: Seconds to wait; None for no limit.
        """
        if self._started:
            await self._dispatcher.aclose(timeout)
        elif self.in_thread:
            await asyncio.to_thread(self.shutdown)
        else:
            self._dispatcher.scheduler.closing = True

    async def swap(self, program: Program, *, label: str = "", drain: bool = False) -> None:
        """Let the workers run another program, which takes the same messages, while jobs come and run.

        A second forkserver loads the program, and one worker opens it. Then the workers are replaced one by one: a
        successor is ready before its predecessor ends. A worker in a job or a stream ends after it. When all places
        have workers of the new program, `swap` returns. The old forkserver ends with the last of its workers.

        *Failure.* If the program cannot be loaded or opened, or a worker dies before its first job, the old program
        goes on, in workers of its own.

        *Cancellation.* As a failure. The processes of the new program end after that.

        *Several swaps.* One runs at a time, the others wait for it. At most two programs are loaded: if workers still
        run jobs of a program that was swapped before, the next swap waits for them up to 60 s, and then kills them.

        Args:
            program: As `program` of the pool.
            label: The name of the program in `generation`, in `workers()`, and for the observer.
            drain: End the workers first, after their jobs (60 s), and load the new program then, so that only one
                program is in memory at a time. Meanwhile jobs wait in the queue. If the new program fails, the old
                one is loaded again.

        Raises:
            WorkerStartError: The new program cannot be loaded or opened within `start_limit`, or its workers die.
            ConfigurationError: Workers cannot import a function of the program.
            ValueError: The program takes other messages.
            PoolClosed: The pool shuts down.
            RuntimeError: The pool was not started on this event loop.
        """
        await self._dispatcher.swap(program, label, drain=drain)

    async def __aenter__(self) -> ProcessPoolExecutor:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @property
    def ready(self) -> int:
        """Number of workers that are idle or run a job."""
        return self._dispatcher.scheduler.ready

    @property
    def generation(self) -> str:
        """The label of the program that new workers run."""
        return self._dispatcher.scheduler.generation.label

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for a worker."""
        return self._dispatcher.scheduler.waiting

    def worker_states(self) -> dict[str, int]:
        """How many workers are in each state."""
        states = [worker.state.value for worker in self._dispatcher.scheduler.workers.values()]
        return {state.value: states.count(state.value) for state in SlotState}

    def workers(self) -> list[WorkerStatus]:
        """The workers as they are now."""
        dispatcher, now = self._dispatcher, monotonic()
        workers = dispatcher.scheduler.workers.values()
        return [status_of(worker, dispatcher.pid_of(worker), now) for worker in workers]

    async def stacks(self, number: int) -> str:
        """The Python stacks of all threads of a worker, last call first, also of one that is stuck in C code.

        Args:
            number: The number of the worker, as in `workers()`. The text may be its own: do not trust it.

        Raises:
            LookupError: The worker has ended.
            TimeoutError: It wrote none within 2 s: it is stopped, or waits in the kernel.
        """
        return await self._dispatcher.stacks(number)

    def replace(self, number: int) -> None:
        """Start a successor of a worker. The worker ends when its successor is ready and its job has ended.

        Args:
            number: The number of the worker, as in `workers()`.

        Raises:
            LookupError: The worker has ended, or starts or ends at the moment.
        """
        self._dispatcher.replace(number)

    @property
    def observer(self) -> PoolObserver | None:
        """Learns how jobs and workers end."""
        return self._dispatcher.observer

    @observer.setter
    def observer(self, observer: PoolObserver | None) -> None:
        self._dispatcher.observer = observer

    @property
    def warnings(self) -> list[str]:
        """Sentences about state that the workers inherit and cannot use: threads, random generators."""
        return self._dispatcher.warnings

    def __repr__(self) -> str:
        scheduler = self._dispatcher.scheduler
        workers = f"{scheduler.ready} of {scheduler.size} workers ready"
        return f"<ProcessPoolExecutor {self.name}: {workers}, {scheduler.waiting} jobs wait>"

    # Jobs

    async def run(self, function: Callable[P, T], /, *args: Any, timeout: float | None = None, **kwargs: Any) -> T:
        """Call a function in a worker and wait for its result. Big buffers (numpy arrays) travel outside of the pickle.

        Args:
            function: A function that can be pickled: one at the top level of a module.
            *args: Its positional arguments.
            timeout: Seconds until the deadline; None for no deadline.
            **kwargs: Its keyword arguments.

        Returns:
            The result of the function. An exception of the function is raised here.

        Raises:
            QueueFull: As many jobs wait as the queue may hold.
            DeadlineExceeded: The deadline passed while the job ran.
            DeadlineInQueue: The deadline passed while the job waited.
            WorkerDied: The worker crashed, exited or was killed.
            RemoteError: The exception of the function, or its result, cannot be pickled.
            PoolClosed: The pool shuts down.
            RuntimeError: The pool was not started on this event loop.
            ConfigurationError: Workers cannot import the module of the function.
        """
        refuse_unimportable(function)
        lengths, body = await pickled_body((function, args, kwargs))
        reply = await self._result(self._call(Call, lengths, body, timeout))
        return unpickled(reply)  # type: ignore[no-any-return]

    async def stream(
        self, function: Callable[..., Any], /, *args: Any, timeout: float | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        """Iterate over `function(*args, **kwargs)` in a worker. Closing the iterator early kills the job.

        Args:
            function: A function that can be pickled, and returns an iterable.
            *args: Its positional arguments.
            timeout: Seconds until the deadline of the whole stream; None for no deadline.
            **kwargs: Its keyword arguments.

        Yields:
            The items.

        Raises:
            PoolError: As in `run`.
            RuntimeError: The pool was not started on this event loop.
            ConfigurationError: Workers cannot import the module of the function.
        """
        refuse_unimportable(function)
        lengths, body = await pickled_body((function, args, kwargs))
        reply = await self._result(self._call(CallStream, lengths, body, timeout))
        assert isinstance(reply.body, JobStream)
        try:
            async for piece in reply.body:
                yield unpickled(JobReply((), piece))
        finally:
            await reply.body.aclose()

    @property
    def submit_job(self) -> Callable[[Job], Job]:
        """`submit_job(Job(meta, body, ...))` starts or queues a job of the program: see `Job` and `Dispatcher`.

        A property: a server looks it up once, and then each job needs one call less.
        """
        return self._dispatcher.submit_job

    def _call(
        self, kind: type[Call | CallStream], lengths: list[int], body: bytes | Arena, timeout: float | None
    ) -> Job:
        if not self._started and not self._dispatcher.scheduler.closing:
            raise RuntimeError(NOT_STARTED)
        return self._dispatcher.submit_job(Job(lengths, body, timeout, kind=kind))

    async def _result(self, job: Job) -> JobReply:
        try:
            return await job.future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self.abandon(job, even_running=True)
            raise

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """The caller no longer waits for `job`: take it from the queue. If it runs and `even_running`, kill it, unless
        it ends within the time that a replacement of its worker takes.
        """
        self._dispatcher.abandon(job, even_running=even_running)

    async def stop(self, job: Job) -> None:
        """Take `job` from the queue, or kill it at once, also in C code.

        Returns when the process that ran it is dead, even if the job had been given up before.
        """
        workers = self._dispatcher.scheduler.workers
        worker = next((each for each in workers.values() if job in each.jobs), None)
        self._dispatcher.cancel(job)
        if worker is not None:
            await self._dispatcher.wait_until(lambda: worker.number not in workers)

    @property
    def answer(self) -> AnswerFunction | None:
        """The function that answers questions of jobs: see `AnswerFunction`."""
        return self._dispatcher.answers.function

    @answer.setter
    def answer(self, function: AnswerFunction | None) -> None:
        self._dispatcher.answers.function = function

    def take_reports(self, function: Callable[[int, Any], None]) -> None:
        """Call `function` with the number of a worker and each report of its program. It checks the report."""
        self._dispatcher.on_report = function

    @property
    def arenas(self) -> Arenas:
        """The source of arenas for `submit_job`. The pool gives an arena back when its job has ended."""
        return self._dispatcher.arenas

    def lane(self, limit: int) -> Lane:
        """A lane for `submit_job`, whose jobs hold at most `limit` workers at a time."""
        return self._dispatcher.scheduler.lane(limit)


async def pickled_body(value: Any) -> tuple[list[int], bytes | Arena]:
    """Pickle `value` for a worker: into bytes, or into an arena if it is big, which a thread fills."""
    lengths, pieces = pickle_pieces(value)
    if not lengths and len(pieces[0]) < BIG:
        return lengths, pieces[0]

    def fill() -> Arena:
        arena = Arena()
        for piece in pieces:
            arena.write(piece)
        return arena

    return lengths, await asyncio.to_thread(fill)
