"""The processes of a pool: the forkserver of each generation, and the starts and ends of the workers.

dispatcher.py extends this file by the jobs. swaps.py changes the generation.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from ..core.cores import available_cores
from ..core.errors import PoolClosed, PoolError, WorkerStartError
from ..core.pool_settings import DEFAULT_POOL
from ..core.shutdown import awake_timeout
from .channel import Channel
from .crash_reports import describe_end
from .descendants import new_mark
from .forkserver import FORKSERVER_END, Forkserver
from .frames import WorkerEnd
from .generations import GenerationScheduler
from .observer import PoolObserver, cause_of
from .program import Program, SharedMemory, WorkerOptions
from .scheduler import KEPT_RUNNING, PAST_DEADLINE
from .state import EXITING, Generation, Worker

log = logging.getLogger("tinysvc.executor")


class WorkerProcesses:
    """The forkservers and the workers of one pool. A subclass carries out the scheduler's instructions."""

    def __init__(
        self,
        scheduler: GenerationScheduler,
        *,
        name: str,
        max_result_size: int,
        memory_limit: int,
        inherited: Sequence[int],
        shared: SharedMemory | None,
    ) -> None:
        self.name = name
        self.scheduler = scheduler
        self.changed = asyncio.Event()  # set whenever a job or a worker has ended, or a worker is ready
        self.workers_changed = asyncio.Event()  # set whenever a worker or a forkserver has ended, or a worker is ready
        self.warnings: list[str] = []
        self.observer: PoolObserver | None = None
        self.forkservers: list[Forkserver] = []  # that may have a process
        self.first_start: asyncio.Future[None]
        self._max_result_size = max_result_size
        self._memory_limit = memory_limit
        self._inherited = inherited  # it is read when a forkserver is made
        self._shared = shared
        self._restarting: set[Generation] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._now: Callable[[], float] = monotonic  # for events that may be read too late

    def _carry_out(self, todo: list[Any]) -> None:
        raise NotImplementedError

    def _channel(self, worker: Worker, ours: socket.socket) -> Channel:
        raise NotImplementedError

    # Forkservers

    def make_forkserver(self, generation: Generation, program: Program) -> None:
        """Give a generation its forkserver, which is not started yet.

        Raises:
            ConfigurationError: Workers cannot import a function of the program.
        """
        options = WorkerOptions(
            logging.getLogger().getEffectiveLevel(),
            self._max_result_size,
            self.scheduler.max_memory > 0,
            self._memory_limit,
            new_mark(),
            tuple(self._inherited),
            self._shared.in_forkserver if self._shared else None,
        )
        threads = max(1, available_cores() // self.scheduler.size)
        on_lost = partial(self._on_forkserver_lost, generation)
        generation.forkserver = Forkserver(program, options, threads, self._on_end, on_lost)

    async def start_forkserver(self, generation: Generation) -> None:
        """Start the forkserver of a generation and wait until it has loaded the program.

        Raises:
            WorkerStartError: It cannot.
            PoolClosed: The pool was shut down meanwhile.
        """
        forkserver = generation.forkserver
        self.forkservers.append(forkserver)
        try:
            await forkserver.start()
        except WorkerStartError:
            if self.scheduler.closed:
                raise PoolClosed("the pool was shut down while it started") from None
            raise
        finally:
            if not forkserver.has_process:
                self._forget(forkserver)
        self._warn(forkserver.warnings)

    def _warn(self, warnings: list[str]) -> None:
        """Log what the workers inherit and cannot use."""
        for warning in warnings:
            if warning not in self.warnings:  # those of the generation before are known
                log.warning("%s%s", "" if self.name == DEFAULT_POOL else f"the pool {self.name}: ", warning)
        self.warnings = warnings

    async def stop_forkserver(self, generation: Generation, seconds: float = FORKSERVER_END) -> None:
        """Stop the forkserver of a generation, and its workers, within these seconds."""
        generation.can_start = False
        await generation.forkserver.stop(seconds)
        self._forget(generation.forkserver)
        for worker in [each for each in self.scheduler.workers.values() if each.generation is generation]:
            self._on_end(WorkerEnd(worker.number, None, "was ended with its forkserver"))

    def _forget(self, forkserver: Forkserver) -> None:
        """The forkserver has ended."""
        if forkserver in self.forkservers:
            self.forkservers.remove(forkserver)
        self.workers_changed.set()

    def restart_if_needed(self) -> None:
        """Start the forkserver of the scheduler's generation unless it runs."""
        generation = self.scheduler.generation
        if generation.forkserver.is_ready:
            self._carry_out(self.scheduler.open(monotonic()))
        elif generation not in self._restarting and not self.scheduler.closed:
            self._restarting.add(generation)
            self.spawn(self._restart(generation))

    def _on_forkserver_lost(self, generation: Generation) -> None:
        scheduler = self.scheduler
        if scheduler.closed:
            return
        self._forget(generation.forkserver)
        for worker in scheduler.lost_forkserver(generation):
            self._on_end(WorkerEnd(worker.number, -signal.SIGKILL, killed=True))
        if generation is scheduler.generation:
            log.error("the forkserver has died, and the workers with it; starting another")
            self.restart_if_needed()
        else:
            log.error("the forkserver of %s has died, and its workers with it", generation.label or "an old program")

    async def _restart(self, generation: Generation) -> None:
        scheduler = self.scheduler
        try:
            while not scheduler.closed and generation is scheduler.generation:
                await generation.forkserver.stop()  # one that is still being stopped must have ended
                try:
                    await self.start_forkserver(generation)
                except (PoolError, OSError) as error:
                    if generation is scheduler.generation:
                        await self._pause_restart(str(error))
                    continue
                if generation is scheduler.generation:
                    self._carry_out(scheduler.open(monotonic()))
                    return
                await self.stop_forkserver(generation)
        finally:
            self._restarting.discard(generation)

    async def _pause_restart(self, error: str) -> None:
        backoff, generation = self.scheduler.backoff, self.scheduler.generation
        self._carry_out(self.scheduler.start_failed(error, monotonic()))
        if generation is self.scheduler.generation:
            log.error("the forkserver cannot start; trying again in %.1f s: %s", backoff.pause, error)
            await asyncio.sleep(backoff.pause)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in a task that ends with the pool."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop_processes(self, seconds: float) -> None:
        """Cancel all tasks, and stop all forkservers with their workers."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*(forkserver.stop(seconds) for forkserver in self.forkservers))
        if tasks:
            await asyncio.wait(tasks)
        self.forkservers.clear()
        for worker in list(self.scheduler.workers.values()):
            self._on_end(WorkerEnd(worker.number, None, "was ended with the pool"))

    # Workers

    def pid_of(self, worker: Worker) -> int:
        pid: int = worker.generation.forkserver.pids.get(worker.number, 0)
        return pid

    async def stacks(self, number: int) -> str:
        worker = self.scheduler.workers.get(number)
        if worker is None or worker.channel is None:
            raise LookupError(f"no worker {number} is at work; it has ended")
        text: str = await worker.channel.stacks(partial(worker.generation.forkserver.write_stacks, number))
        if not text:
            raise TimeoutError(f"worker {number} wrote no stacks: it is stopped, has ended, or waits in the kernel")
        return text

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
                if self.scheduler.workers.get(worker.number) is not worker:  # it has ended with its forkserver
                    channel.close_for_good()
                elif worker.kill_reason:  # the forkserver did not know it yet
                    self._on_end(WorkerEnd(worker.number, None, f"was not started: it {worker.kill_reason}"))
                else:
                    worker.generation.forkserver.fork(worker.number, [theirs.fileno(), *channel.worker_files()])
        except OSError as error:  # no descriptor is free, for example
            self._on_end(WorkerEnd(worker.number, None, f"could not be started: {error}"))

    def _kill(self, worker: Worker) -> None:
        worker.generation.forkserver.kill(worker.number, with_stack=worker.kill_reason == PAST_DEADLINE)

    def _on_ready(self, worker: Worker) -> None:
        self._carry_out(self.scheduler.became_ready(worker, self._now()))
        if not self.first_start.done() and self.scheduler.ready == self.scheduler.size:
            self.first_start.set_result(None)
        self.changed.set()
        self.workers_changed.set()

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
        delays_starts = worker.generation is scheduler.generation and not scheduler.is_tried(worker)
        if self.observer is not None:
            cause = cause_of(worker, end, is_closing=scheduler.closing)
            self.observer.on_worker_end(worker.generation.label, cause)
        self._carry_out(scheduler.died(worker, self._now(), how, end.exit_code, f"; {report}" if report else ""))
        self.changed.set()
        self.workers_changed.set()
        if scheduler.closing:
            pass
        elif worker.started and (unexpected or late):
            log.warning("%s%s", how, f"; {report}" if late else "")
        elif not worker.started and delays_starts:
            self._on_failed_start(how)

    def _on_failed_start(self, how: str) -> None:
        backoff = self.scheduler.backoff
        if not self.first_start.done():
            worker = "a worker" if self.name == DEFAULT_POOL else f"a worker of the pool {self.name}"
            self.first_start.set_exception(WorkerStartError(f"{worker} cannot start", backoff.last_failure))
        else:
            log.error("%s; trying again in %.1f s\n%s", how, backoff.pause, backoff.last_failure)

    # Waiting

    async def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait for a condition of jobs or workers, at most `timeout` seconds."""
        await _wait_until(condition, self.changed, timeout)

    async def workers_reach(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """As `wait_until`, for a condition of workers and forkservers alone. Return whether it holds."""
        await _wait_until(condition, self.workers_changed, timeout)
        return condition()


async def _wait_until(condition: Callable[[], bool], changed: asyncio.Event, timeout: float | None) -> None:
    with suppress(TimeoutError):
        async with awake_timeout(timeout):
            while not condition():
                changed.clear()
                await changed.wait()
