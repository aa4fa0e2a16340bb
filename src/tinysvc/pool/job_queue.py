"""The queue of jobs: which job waits, which one runs next, and how each one ends. Without clock, loop, socket, process.

    admit ──> lane ──> a free slot ──> outcomes, deadline, or abandonment
              (FIFO,   (at most `size`
              bounded)  at work)

It is written once, for three uses, which differ in their slots and in a few parameters:

    a slot is            of which the shell is      and a job that ends before its slot
    a worker process     pool/dispatcher.py         is killed (scheduler.py extends the queue)
    a call of executor   pool/external.py           is a zombie: it runs on, and holds its slot
    a batch in a pool    runtime/batching.py        is dropped; when all of a batch have ended, the batch is abandoned

The state of a job, by event. A `-` is ignored: a job is settled exactly once, by the first event that ends it.

    event                      queued                      running                          done
    a slot is free             running; Run                -                                -
    end of the slot            -                           done; Settle(outcome)            -
    deadline                   done; Settle(InQueue)       done; Settle(Exceeded), Stop     -
    abandon                    done; Settle(Abandoned)     -                                -
    abandon, even_running      done; Settle(Abandoned)     done; Settle(Abandoned), Stop    -
    close                      done; Settle(PoolClosed)    done; Settle(PoolClosed), Stop   -

    slot     free ──Run──> at work ──end──> free       `end` comes from outside, also after a Stop

Each event is one method. It changes the state and returns instructions for the shell. The queue never calls the shell.
`admit` is on the path of each request, so it returns the slot of a job that starts at once, instead of a list with one
Run: the list costs 0.6 us, more than a tenth of the time in which the server handles a job. All that follows besides
is in `take()`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct

from ..core.errors import DeadlineExceeded, DeadlineInQueue, JobAbandoned, PoolClosed, QueueFull
from .state import BUSY, DONE, IDLE, QUEUED, RUNNING, Job, Lane, Slot

TICK = 0.005
"""Seconds between two checks of the deadlines: a thousand jobs that expire in one second cost 200 checks."""


class Instruction(Struct, gc=False):
    """What a shell is to do. It lives for one event, in no reference cycle: the garbage collector need not know it."""


class Run(Instruction):
    """Run the jobs of the slot. `end` follows."""

    slot: Any


class Settle(Instruction):
    """Report the end of the job to its caller."""

    job: Job
    outcome: Any


class Stop(Instruction):
    """All jobs of the slot have ended: their computation may be stopped."""

    slot: Any
    late: bool
    """Because of a deadline."""


class WakeAt(Instruction):
    """Call `tick` at this time, or earlier."""

    when: float


class Grouping(NamedTuple):
    """How many waiting jobs start together in one slot, in a queue with one lane."""

    size: int = 1
    wait: float = 0.0
    """Seconds that a job waits for others while a slot is free."""
    max_bytes: float = math.inf
    """Of the bodies of several jobs."""


ALONE = Grouping()
"""Each job starts alone."""


S = TypeVar("S", bound=Slot)


class JobQueue(Generic[S]):
    """At most `size` slots at work, and at most `queue_size` jobs that wait.

    Args:
        size: Slots that may be at work.
        queue_size: Jobs that may wait.
        grouping: How jobs are grouped.
        reports_start: The shell notes when a job starts, in `Job.started`. Otherwise it starts with its slot.
        when_late: Further words for the error of a job that has run past its deadline.
        when_abandoned: The sentence of the error of a job that was abandoned while it ran.
    """

    kills = False
    """Whether a job that ends before its slot is killed: its lane has room at once."""

    def __init__(
        self,
        size: int,
        queue_size: int,
        grouping: Grouping = ALONE,
        *,
        reports_start: bool = False,
        when_late: str = "",
        when_abandoned: str = "the job was abandoned",
    ) -> None:
        self.size = size
        self.queue_size = queue_size
        self.grouping = grouping
        self.has_groups = grouping.size > 1
        self.reports_start = reports_start
        self.when_late = when_late
        self.when_abandoned = when_abandoned
        self.free: list[S] = []
        self.at_work: dict[S, None] = {}  # slots whose jobs may still run, settled or not; in the order of starts
        self.open_lane = Lane()
        self.lanes = [self.open_lane]
        self.waiting = 0  # jobs, over all lanes
        self.mean_run = 0.0  # seconds; a moving average over about ten values
        self.numbers = count(1)  # for new jobs
        self.closing = False
        self.checks_jobs = False  # whether `_check` looks at each job before it is admitted
        self.max_starts = 0  # of a slot, then `_wear_out` is called; 0: no limit
        self.next_tick = math.inf  # the earliest WakeAt since the last tick
        self.todo: list[Instruction] = []

    @property
    def retry_after(self) -> int:
        """Whole seconds until a job that comes now starts: the starts before it, times their mean run time."""
        starts = self.waiting // self.grouping.size + 1
        return max(1, math.ceil(starts * self.mean_run / self.size))

    def take(self) -> list[Instruction]:
        """The instructions since the last call."""
        todo, self.todo = self.todo, []
        return todo

    def lane(self, limit: int) -> Lane:
        """A new lane for jobs that share a limit."""
        lane = Lane(limit)
        self.lanes.append(lane)
        return lane

    def queued(self) -> Iterator[Job]:
        for lane in self.lanes:
            yield from lane.waiting.values()

    def jobs(self) -> Iterator[Job]:
        """All jobs that have not ended."""
        yield from self.queued()
        for slot in self.at_work:
            for job in slot.jobs:
                if job.state is not DONE:
                    yield job

    # Events

    def admit(self, job: Job, now: float, elsewhere: int = 0) -> S | None:
        """Start the job or queue it.

        Args:
            job: A new job, with its number.
            now: The time.
            elsewhere: Jobs that wait in another queue before this one.

        Returns:
            The slot in which the job runs now; None: it waits, or is in a Run.

        Raises:
            PoolClosed: The queue is closing.
            QueueFull: As many jobs wait as may wait.
        """
        if self.closing:
            raise PoolClosed("the pool is shutting down")
        if self.checks_jobs:
            self._check(job, now)
        lane = job.lane
        if lane is None:
            lane = job.lane = self.open_lane
        has_room = self.free and len(self.at_work) < self.size and lane.running < lane.limit
        if not has_room and self.waiting + elsewhere >= self.queue_size:
            raise QueueFull(f"{self.waiting + elsewhere} jobs wait already; try again later", self.retry_after)
        job.admitted = now
        if job.timeout is not None:
            job.deadline = now + job.timeout
            if job.deadline < self.next_tick:
                self._wake_at(job.deadline)
        if has_room and not self.has_groups:
            return self._start((job,), lane, now)
        lane.waiting[job.number] = job
        self.waiting += 1
        if has_room:
            self._dispatch(now)
        return None

    def end(self, slot: S, outcomes: Iterable[Any], now: float) -> list[Instruction]:
        """What ran in the slot has ended, with an outcome for each of its jobs: the slot is free."""
        jobs = slot.jobs
        self._leave_slot(slot, now)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.state is not DONE:
                self._finish(job, outcome, now)
        slot.state = IDLE
        self.free.append(slot)
        self._dispatch(now)
        return self.take()

    def abandon(self, job: Job, now: float, *, even_running: bool) -> list[Instruction]:
        """The caller no longer waits for `job`: take it from the queue; end it if it runs and `even_running`."""
        if job.state is QUEUED or (job.state is RUNNING and not job.started):
            self._drop(job, JobAbandoned("the job was abandoned before it started"), now)
        elif job.state is RUNNING and even_running:
            self._give_up(job, now)
        return self.take()

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed: end the jobs that are late, and start the jobs that may start."""
        self._expire_late(now)
        self._dispatch(now)
        self._wake_next((), now)
        return self.take()

    def postpone(self, seconds: float) -> None:
        """Postpone all deadlines: for these seconds the server, and perhaps the slots, did not run."""
        for job in self.jobs():
            job.deadline += seconds
        self.next_tick += seconds

    def resize(self, size: int, now: float) -> list[Instruction]:
        """There are `size` slots now: start the jobs that may start. Not for slots that start and end by themselves."""
        grows = size > self.size
        self.size = size
        while len(self.free) + len(self.at_work) < size:
            self.free.append(Slot())  # type: ignore[arg-type]
        if grows:  # before `admit` gives the new slots to a new job
            self._dispatch(now)
        return self.take()

    def close(self, now: float) -> list[Instruction]:
        """End all jobs, and admit no more."""
        self.closing = True
        for job in list(self.jobs()):
            self._drop(job, PoolClosed("the pool was shut down before the job ended"), now)
        return self.take()

    # Starts

    def _check(self, job: Job, now: float) -> None:
        """Refuse the job by an exception. A queue with such checks sets `checks_jobs`."""

    def _wear_out(self, slot: S, now: float) -> None:
        """The slot has been given `max_starts` jobs."""

    def _start(self, jobs: Sequence[Job], lane: Lane, now: float) -> S:
        slot = self.free.pop()
        self.at_work[slot] = None
        slot.state, slot.jobs = BUSY, jobs
        slot.starts += 1
        lane.running += 1
        for job in jobs:
            job.state, job.slot = RUNNING, slot
            if not self.reports_start:
                job.started = now
        if self.max_starts and slot.starts >= self.max_starts:
            self._wear_out(slot, now)
        return slot

    def _dispatch(self, now: float) -> None:
        """Start waiting jobs in free slots: no slot is free while a job could run there."""
        while self.waiting and self.free and len(self.at_work) < self.size and (lane := self._next_lane()) is not None:
            if self.has_groups and self.waiting < self.grouping.size:
                first = next(iter(lane.waiting.values()))
                due = first.admitted + self.grouping.wait
                if now < due:
                    self._wake_at(due)
                    return
            if jobs := self._next_jobs(lane, now):
                self.todo.append(Run(self._start(jobs, lane, now)))

    def _next_lane(self) -> Lane | None:
        """Of the lanes below their limit, the one with the job that has waited longest."""
        best, oldest = None, math.inf
        for lane in self.lanes:
            if lane.waiting and lane.running < lane.limit and (first := next(iter(lane.waiting))) < oldest:
                best, oldest = lane, first
        return best

    def _next_jobs(self, lane: Lane, now: float) -> list[Job]:
        """Take the oldest jobs of the lane, as many as may start together. Jobs that are late end; perhaps all do."""
        jobs: list[Job] = []
        size = 0  # of the bodies of `jobs`
        while lane.waiting and len(jobs) < self.grouping.size:
            job = next(iter(lane.waiting.values()))
            if job.deadline <= now:
                self._expire(job, now)
                if not jobs:
                    return jobs  # now another lane may have the oldest job
                continue
            if jobs and (size := size + len(jobs[-1].body)) + len(job.body) > self.grouping.max_bytes:
                break
            self._take_from_queue(job)
            jobs.append(job)
        return jobs

    def _take_from_queue(self, job: Job) -> None:
        assert job.lane is not None
        del job.lane.waiting[job.number]
        self.waiting -= 1

    # Ends

    def _leave_slot(self, slot: S, now: float) -> None:
        """Nothing runs in the slot any more. Its jobs that have not ended are to be ended next."""
        first = slot.jobs[0]
        slot.jobs = ()
        del self.at_work[slot]
        if first.started:
            ran = now - first.started
            self.mean_run += (ran - self.mean_run) / 10 if self.mean_run else ran
        if not self.kills:
            first.lane.running -= 1  # type: ignore[union-attr]

    def _finish(self, job: Job, outcome: Any, now: float) -> None:
        """End a job that has not ended."""
        if job.state is QUEUED:
            self._take_from_queue(job)
        elif self.kills:
            job.lane.running -= 1  # type: ignore[union-attr]
        job.state, job.slot = DONE, None
        if not job.settled:
            job.settled = now
        self.todo.append(Settle(job, outcome))

    def _drop(self, job: Job, error: Exception, now: float, *, late: bool = False) -> None:
        """End a job before its slot, if it has one."""
        slot: Any = job.slot
        self._finish(job, error, now)
        if slot is not None and slot.job is None:
            self._stop(slot, now, late=late)

    def _stop(self, slot: S, now: float, *, late: bool) -> None:
        """No job of the slot is left."""
        self.todo.append(Stop(slot, late))

    def _give_up(self, job: Job, now: float) -> None:
        """The caller of a running job no longer waits for it."""
        self._drop(job, JobAbandoned(self.when_abandoned), now)

    # Deadlines

    def _expire_late(self, now: float) -> None:
        self.next_tick = math.inf
        for job in list(self.jobs()):
            if job.deadline <= now:
                self._expire(job, now)

    def _expire(self, job: Job, now: float) -> None:
        """End a job at its deadline."""
        error: Exception
        if job.started:
            error = DeadlineExceeded(f"the job ran past its deadline of {job.timeout:g} s{self.when_late}")
        else:
            error = DeadlineInQueue(f"the job waited past its deadline of {job.timeout:g} s", self.retry_after)
        self._drop(job, error, now, late=True)

    def _wake_next(self, times: Iterable[float], now: float) -> None:
        """Set the next wake-up: the earliest deadline of a job, or one of `times`."""
        earliest = min((*(job.deadline for job in self.jobs()), *times), default=math.inf)
        if earliest < math.inf:
            self._wake_at(max(earliest, now + TICK))

    def _wake_at(self, when: float) -> None:
        if when < self.next_tick:
            self.next_tick = when
            self.todo.append(WakeAt(when))
