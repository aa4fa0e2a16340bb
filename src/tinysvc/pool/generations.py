"""Generations: how the workers of a pool change from one program to another. Without clock, loop, socket, process.

    swap     trying ──> renewing ──> done        (a swap with a drain begins with renewing)
                └──────────┴───────> failed

*Trying.* One worker of the new generation starts beside the others. The generation of the scheduler is still the old
one: a crashed worker gets a successor of the old generation.

*Renewing.* The worker of the new generation is ready. From now on all new workers are of the new generation. Workers of
other generations are replaced one at a time, by the rules of scheduler.py: a successor is ready before its predecessor
is dismissed, and a worker in a job goes on until the end of the job.

*Done.* All slots have ready workers of the new generation.

*Failed.* A worker of the new generation has ended before its first job, or the swap was given up. The old generation is
that of the scheduler again, and workers of the new one, if there are any, are replaced in the same way.

A generation that is not that of the scheduler ends with its last worker.
"""

from __future__ import annotations

import enum
import math
from typing import Any

from ..core.errors import WorkerDied
from .crash_loops import CrashLoops
from .job_queue import Instruction
from .scheduler import Scheduler
from .state import BUSY, DYING, EXITING, IDLE, STARTING, Generation, Worker

GIVEN_UP = "is of a generation that was given up"
"""Kill reason of a worker that starts while the swap to its generation fails."""

HELD_TOO_LONG = "held an old generation while a new one waited"
"""Kill reason of a worker whose job did not end in the time that the jobs of an old generation get."""


class HeldTooLong(WorkerDied):
    """500: as WorkerDied; a swap has ended the worker, so another worker may run the job."""


class SwapState(enum.Enum):
    TRYING = "trying"
    RENEWING = "renewing"
    DONE = "done"
    FAILED = "failed"


class StopForkserver(Instruction):
    """The generation has no workers and gets no more: stop its forkserver."""

    generation: Generation


class Swap:
    """A change from one generation to another.

    Attributes:
        error: Why it has failed: a sentence, and the traceback of a worker or "".
    """

    __slots__ = ("error", "new", "old", "state")

    def __init__(self, old: Generation, new: Generation, state: SwapState) -> None:
        self.old = old
        self.new = new
        self.state = state
        self.error = ("", "")

    @property
    def has_ended(self) -> bool:
        return self.state in (SwapState.DONE, SwapState.FAILED)


class GenerationScheduler(Scheduler):
    """A scheduler whose workers can be of several generations."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.generations = [self.generation]  # all that have workers or may get some
        self.swap: Swap | None = None  # the one under way

    def has_workers(self, generation: Generation) -> bool:
        """Whether the generation has workers, other than those that the kernel cannot end."""
        return any(worker.generation is generation and not _is_given_up(worker) for worker in self.workers.values())

    def is_tried(self, worker: Worker) -> bool:
        """Whether the worker is of the generation of the swap that is under way."""
        return self.swap is not None and worker.generation is self.swap.new

    # Events

    def try_out(self, new: Generation, now: float) -> list[Instruction]:
        """Begin a swap: the forkserver of the new generation is there."""
        new.can_start = True
        self.generations.append(new)
        self.swap = Swap(self.generation, new, SwapState.TRYING)
        self._start_worker(new, now).holds_slot = False
        return self.take()

    def drain_to(self, new: Generation, now: float) -> list[Instruction]:
        """Begin a swap with a drain: all workers end, busy ones after their jobs. `open` follows."""
        self.swap = Swap(self.generation, new, SwapState.RENEWING)
        self.generations.append(new)
        self.generation = new
        self._crash_loops = CrashLoops()
        for worker in list(self.workers.values()):
            worker.holds_slot = False
            if worker.state is IDLE:
                self._dismiss(worker, now)
            elif worker.state in (STARTING, BUSY):
                worker.replaced = True
        return self.take()

    def give_up(self, now: float) -> list[Instruction]:
        """The swap under way, if there is one, fails."""
        if self.swap is not None:
            self._fail(self.swap, "the swap was given up", "", now)
            self._fill_slots(now)
        return self.take()

    def kill_generation(self, generation: Generation, reason: str, now: float) -> list[Instruction]:
        """Kill all workers of a generation, also those in a job."""
        for worker in list(self.workers.values()):
            if worker.generation is generation:
                self._kill(worker, reason, now)
        return self.take()

    def became_ready(self, worker: Worker, now: float) -> list[Instruction]:
        swap = self.swap
        if worker.replaced:  # its generation was drained while it started
            worker.started, worker.since = True, now
            self._dismiss(worker, now)
            return self.take()
        if swap is not None and swap.state is SwapState.TRYING and worker.generation is swap.new:
            self._adopt(swap, worker)
        return super().became_ready(worker, now)

    def died(
        self, worker: Worker, now: float, how: str, exit_code: int | None = None, report: str = ""
    ) -> list[Instruction]:
        swap = self.swap
        unused = not worker.starts and not worker.replaced and worker.number in self.workers
        if swap is not None and self.is_tried(worker) and unused:
            worker.holds_slot = False
            when = "ended before its first job" if worker.started else "cannot start"
            self._fail(swap, f"a worker of the new program {when}", worker.start_error or f"{how}{report}", now, worker)
        return super().died(worker, now, how, exit_code, report)

    def start_failed(self, error: str, now: float) -> list[Instruction]:
        if self.swap is not None and self.swap.new is self.generation:
            self._fail(self.swap, "the forkserver of the new program cannot start again", error, now)
            self._fill_slots(now)
            return self.take()
        return super().start_failed(error, now)

    # Steps

    def _death(self, worker: Worker, message: str, exit_code: int | None) -> WorkerDied:
        kind = HeldTooLong if worker.kill_reason == HELD_TOO_LONG else WorkerDied
        return kind(message, exit_code)

    def _adopt(self, swap: Swap, first: Worker) -> None:
        """The first worker of the new generation gets the slot of one of the old generation, which it replaces."""
        swap.state = SwapState.RENEWING
        self.generation = swap.new
        self._crash_loops = CrashLoops()  # jobs that have crashed the old program may run in the new one
        first.holds_slot = True
        holders = [worker for worker in self.workers.values() if worker.holds_slot and worker is not first]
        if len(holders) >= self.size:
            min(holders, key=lambda worker: _RENEWAL_ORDER.index(worker.state)).holds_slot = False

    def _fill_slots(self, now: float) -> None:
        super()._fill_slots(now)
        if len(self.generations) > 1:
            self._renew_next(now)

    def _renew_next(self, now: float) -> None:
        """Start a successor of one worker of another generation. End the swap if there is none."""
        others = [worker for worker in self.workers.values() if worker.generation is not self.generation]
        holders = [worker for worker in others if worker.holds_slot]
        swap = self.swap
        if holders:
            old = min(holders, key=lambda worker: _RENEWAL_ORDER.index(worker.state))
            if old.state in (STARTING, IDLE, BUSY) and self._may_renew(others):
                old.holds_slot = False
                super()._fill_slots(now)
        elif swap is not None and swap.new is self.generation:
            ready = [worker for worker in self._ready_workers() if worker.generation is swap.new]
            if len(ready) >= self.size:
                swap.state, self.swap = SwapState.DONE, None
        self._end_generations()

    def _may_renew(self, others: list[Worker]) -> bool:
        """Whether a further worker may be replaced: one at a time, and only when its predecessor has ended."""
        if self.closing or self.backoff.failures or not self.generation.can_start:
            return False
        if any(worker.state in (EXITING, DYING) and not _is_given_up(worker) for worker in others):
            return False
        starting = [worker for worker in self.workers.values() if worker.state is STARTING and worker.holds_slot]
        return all(worker in others for worker in starting)

    def _fail(self, swap: Swap, message: str, details: str, now: float, dead: Worker | None = None) -> None:
        """Go back to the old generation. `dead` is the worker that has ended."""
        swap.state, swap.error, self.swap = SwapState.FAILED, (message, details), None
        self.generation = swap.old
        for worker in list(self.workers.values()):
            if worker.generation is swap.new and worker.state is STARTING and worker is not dead:
                worker.holds_slot = False
                self._kill(worker, GIVEN_UP, now)
        for worker in self._ready_workers():  # those whose successor does not come
            held = sum(each.holds_slot for each in self.workers.values())
            if worker.generation is swap.old and not worker.replaced and not worker.retiring and held < self.size:
                worker.holds_slot = True
        self._end_generations()

    def _end_generations(self) -> None:
        kept = {self.generation} if self.swap is None else {self.swap.old, self.swap.new}
        for generation in [each for each in self.generations if each not in kept and not self.has_workers(each)]:
            self.generations.remove(generation)
            self.todo.append(StopForkserver(generation))


_RENEWAL_ORDER = [IDLE, STARTING, BUSY, EXITING, DYING]
"""By their states, the order in which workers are replaced: those first whose end no job delays."""


def _is_given_up(worker: Worker) -> bool:
    """Whether neither we nor the kernel can end the process."""
    return worker.state is DYING and worker.deadline == math.inf
