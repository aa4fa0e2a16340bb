"""Swaps: a pool gets another program while it works.

    live      start the new forkserver ──> try one worker ──> renew the others ──> stop the old forkserver
    drain     end the old workers ──> stop the old forkserver ──> start the new one ──> start the workers

generations.py decides which worker is of which generation, and can go back at any step. This file starts and stops
the forkservers, and waits. A swap that fails, or whose caller is cancelled, goes back to the old generation. If that
has no forkserver any more (after a drain, or because it died), it gets one again.

*Memory.* At most two generations are loaded: a swap first waits until all generations but the present one have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..core.errors import PoolClosed, WorkerStartError
from ..core.shutdown import awake_timeout
from .frames import message_types
from .generations import HELD_TOO_LONG, Swap, SwapState
from .program import Program
from .state import Generation

if TYPE_CHECKING:
    from .worker_processes import WorkerProcesses

HOLD_LIMIT = 60.0
"""Seconds for the jobs of an old generation, while another one waits for its memory. Jobs without a deadline, such as
endless streams, would block the next swap for ever. Two versions of a model within a minute are rare."""


class Swaps:
    """The swaps of one pool: one at a time."""

    def __init__(self, processes: WorkerProcesses, carry_out: Callable[[list[Any]], None]) -> None:
        self._processes = processes
        self._scheduler = processes.scheduler
        self._carry_out = carry_out
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def swap(self, old: Program, program: Program, label: str, *, drain: bool) -> None:
        """See ProcessPoolExecutor.swap. `old` is any earlier program of the pool."""
        if message_types(program) != message_types(old):
            raise ValueError("the new program must have the message types of the old one")
        new = Generation(label)
        self._processes.make_forkserver(new, program)
        task = self._processes.spawn(self._in_turn(new, drain=drain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._scheduler.closing and current is not None and not current.cancelling():
                raise PoolClosed("the pool was shut down before the swap had ended") from None
            raise

    def cancel(self) -> None:
        """Cancel the swaps: the pool closes."""
        for task in self._tasks:
            task.cancel()

    async def _in_turn(self, new: Generation, *, drain: bool) -> None:
        async with self._lock:
            await asyncio.shield(self._processes.first_start)
            await self._end_old_generations()
            try:
                await (self._drained(new) if drain else self._live(new))
            except BaseException:
                self._carry_out(self._scheduler.give_up(monotonic()))
                if not self._scheduler.closed:
                    self._processes.restart_if_needed()
                raise

    async def _end_old_generations(self) -> None:
        """Wait until only the present generation has processes; kill jobs that last too long."""

        def ended() -> bool:
            return all(forkserver is scheduler.generation.forkserver for forkserver in self._processes.forkservers)

        scheduler = self._scheduler
        if not await self._processes.workers_reach(ended, HOLD_LIMIT):
            for generation in scheduler.generations:
                if generation is not scheduler.generation:
                    self._carry_out(scheduler.kill_generation(generation, HELD_TOO_LONG, monotonic()))
            await self._processes.workers_reach(ended)

    async def _live(self, new: Generation) -> None:
        await self._start_forkserver(new)
        self._carry_out(self._scheduler.try_out(new, monotonic()))
        await self._end_of_swap()

    async def _drained(self, new: Generation) -> None:
        scheduler, old = self._scheduler, self._scheduler.generation
        self._carry_out(scheduler.drain_to(new, monotonic()))

        def drained() -> bool:
            return not scheduler.has_workers(old)

        if not await self._processes.workers_reach(drained, HOLD_LIMIT):
            self._carry_out(scheduler.kill_generation(old, HELD_TOO_LONG, monotonic()))
            await self._processes.workers_reach(drained)
        await self._processes.stop_forkserver(old)
        await self._start_forkserver(new)
        self._carry_out(scheduler.open(monotonic()))
        await self._end_of_swap()

    async def _start_forkserver(self, new: Generation) -> None:
        limit = self._scheduler.start_limit
        try:
            async with awake_timeout(limit):
                await self._processes.start_forkserver(new)
        except TimeoutError:
            raise WorkerStartError(f"the new program was not loaded within {limit:g} s") from None

    async def _end_of_swap(self) -> None:
        swap = self._scheduler.swap
        assert isinstance(swap, Swap)
        await self._processes.workers_reach(lambda: swap.has_ended)
        if swap.state is SwapState.FAILED:
            raise WorkerStartError(*swap.error)
