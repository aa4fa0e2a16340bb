"""The shared memory of big bodies: where a pool keeps it for the next one, and when it gives it back to the system."""

from __future__ import annotations

import asyncio
import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from .arena import SPARE, Arena, Arenas
from .frames import RunProgram
from .job_reply import JobReply
from .state import Job

if TYPE_CHECKING:
    from .channel import Channel
    from .scheduler import Scheduler


class BodyMemory:
    """The arenas of one pool. Those for results belong to the channels of its workers.

    Args:
        scheduler: That of the pool.
        max_result_size: Bytes that a result may have.
    """

    def __init__(self, scheduler: Scheduler, max_result_size: int) -> None:
        self.arenas = Arenas()
        self._scheduler = scheduler
        self._max_result_size = max_result_size
        self._trimming: asyncio.TimerHandle | None = None

    def release(self, job: Job, outcome: object) -> None:
        """Keep the arena of a body whose job has ended, unless the worker may still use it."""
        if job.kind is RunProgram and isinstance(outcome, JobReply):
            self.arenas.give_back(job.arena)
            self._trim_later()
        else:
            job.arena.close()

    def take_result(self, channel: Channel, size: int) -> memoryview:
        """The big result in a worker's arena. The worker gets another one with its next job.

        Raises:
            ValueError: The arena holds no result of this size.
        """
        arena, channel.arena = channel.arena, None
        held = os.fstat(arena.descriptor).st_size if arena is not None else 0
        if arena is None or not 0 < size <= min(held, self._max_result_size):
            raise ValueError(f"sent a result of {size} bytes in an arena that holds {held}")
        arena.size = size
        try:
            view: memoryview = arena.view()
        except OSError:  # no descriptor is free, and a mapping holds one
            return memoryview(os.pread(arena.descriptor, size, 0))
        weakref.finalize(view.obj, self._reclaim, asyncio.get_running_loop(), channel.arenas, arena).atexit = False
        return view

    def close(self) -> None:
        """Give all back to the system."""
        if self._trimming is not None:
            self._trimming.cancel()
        self.arenas.close()

    def _reclaim(self, loop: asyncio.AbstractEventLoop, arenas: Arenas, arena: Arena) -> None:
        """The last reference to a big result is released, in any thread."""
        arenas.give_back(arena)
        if self._trimming is None and not self._scheduler.closed:
            with suppress(RuntimeError):  # the loop has ended, and the pool with it
                loop.call_soon_threadsafe(self._trim_later)

    def _trim_later(self) -> None:
        if self._trimming is None and not self._scheduler.closed:
            self._trimming = asyncio.get_running_loop().call_later(SPARE, self._trim)

    def _trim(self) -> None:
        self._trimming = None
        channels = [worker.channel for worker in self._scheduler.workers.values() if worker.channel is not None]
        kept = [self.arenas, *(channel.arenas for channel in channels)]
        any(each.trim() for each in kept)  # one at a time
        if any(map(len, kept)):
            self._trim_later()
