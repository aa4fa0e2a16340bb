"""The state of a pool: its jobs, the lanes in which they wait, and the slots in which they run. job_queue.py and
scheduler.py change it.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from .frames import Call, CallStream, RunProgram

START_LIMIT = 600.0
"""Seconds for a worker to become ready. Models are large, but one that takes ten minutes to load never ends."""


class JobState(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class SlotState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    EXITING = "exiting"
    DYING = "dying"


QUEUED, RUNNING, DONE = JobState
STARTING, IDLE, BUSY, EXITING, DYING = SlotState
# As module globals: in CPython 3.11, looking up a member on its class costs as much as two calls.


class Lane:
    """Jobs that wait together. At most `limit` slots run them at a time."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        self.running = 0  # slots
        self.waiting: OrderedDict[int, Job] = OrderedDict()


class Job:
    """One job, from its caller to its end. The caller makes it and gives it to `submit_job` of a pool or a batcher.

    Args:
        meta: A value that MessagePack can carry; for a call of a function, the lengths of its pickle.
        body: Bytes, or an arena, which belongs to the pool from then on.
        timeout: Seconds until its deadline. None: no deadline.
        lane: Limits the slots that run its jobs at a time. None: no limit.
        key: Equal for jobs that do the same: see crash_loops.CRASH_LIMIT.
        stops: Whether `abandon` stops it if it runs.
        kind: What the worker does with it.
    """

    __slots__ = (
        "abandoned", "admitted", "arena", "body", "deadline", "frame", "future", "key", "kind", "lane", "late", "meta",
        "number", "pool", "settled", "slot", "started", "state", "stops", "stream", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        meta: Any,
        body: Any = b"",
        timeout: float | None = None,
        lane: Lane | None = None,
        key: Hashable = None,
        stops: bool = True,
        kind: type[RunProgram[Any] | Call | CallStream] = RunProgram,
    ) -> None:
        self.meta = meta
        self.body = body
        self.timeout = timeout
        self.lane = lane
        self.key = key
        self.stops = stops
        self.kind = kind
        # The queue sets these.
        self.number = 0  # unique in its queue, in the order of the calls
        self.state = QUEUED
        self.deadline = math.inf
        self.admitted = 0.0
        self.started = 0.0  # 0.0: it has not started
        self.settled = 0.0  # when its result came, or its stream began
        self.slot: Slot | None = None  # where it runs; None before and after
        self.abandoned = False  # its caller no longer waits; it may run for another moment
        self.late = False  # abandoned because of a deadline that the queue does not know
        # The shell around the queue sets these.
        self.pool: Any = None  # which has taken it
        self.future: Any = None  # where its end goes
        self.stream: Any = None
        self.frame = b""
        self.arena: Any = None  # of its body

    @property
    def queued(self) -> float:
        """Seconds that it waited; valid when it is settled."""
        return (self.started or self.settled) - self.admitted

    @property
    def ran(self) -> float:
        """Seconds that it ran until it was settled."""
        return self.settled - (self.started or self.settled)

    def abandon(self) -> None:
        """The caller no longer waits for it."""
        self.pool.abandon(self, even_running=self.stops)

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.state.value}>"


class Slot:
    """A place in which one job runs at a time, or one group of jobs. `handle` is for the shell around the queue."""

    __slots__ = ("handle", "jobs", "starts", "state")

    def __init__(self) -> None:
        self.state = IDLE
        self.jobs: Sequence[Job] = ()  # settled or not, as long as they may run
        self.starts = 0  # jobs or groups that it has been given
        self.handle: Any = None

    @property
    def job(self) -> Job | None:
        """The first of its jobs that has not ended."""
        return next((job for job in self.jobs if job.state is not DONE), None)


class Generation:
    """A program, the forkserver that has loaded it, and the workers of that forkserver. The scheduler does not use
    `forkserver`.
    """

    __slots__ = ("can_start", "forkserver", "label")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self.can_start = False  # its forkserver can fork workers
        self.forkserver: Any = None

    def __repr__(self) -> str:
        return f"<Generation {self.label!r}>"


class Worker(Slot):
    """One worker process. The dispatcher uses `channel`; the scheduler does not."""

    __slots__ = (
        "channel",
        "deadline",
        "generation",
        "holds_slot",
        "kill_reason",
        "number",
        "replaced",
        "retiring",
        "since",
        "start_error",
        "started",
    )

    def __init__(self, number: int, now: float, generation: Generation, start_limit: float = START_LIMIT) -> None:
        super().__init__()
        self.number = number
        self.generation = generation
        self.state = STARTING
        self.started = False  # it has been ready
        self.since = now  # when it was started, or became ready
        self.deadline = now + start_limit  # by which it must have reached its next state
        self.holds_slot = True  # no successor may start beside it
        self.retiring = False  # it gets no further jobs, and exits when its successor is ready
        self.replaced = False  # its successor is ready: it exits after its present job
        self.start_error = ""  # why it could not become ready, in its own words
        self.kill_reason = ""
        self.channel: Any = None

    def __repr__(self) -> str:
        job = f" {self.job!r}" if self.job else ""
        return f"<Worker {self.number} {self.state.value}{job}>"


class WorkerStatus(NamedTuple):
    """A worker as it is now. Ages are in seconds."""

    number: int
    pid: int
    """0 until its process is known."""
    state: str
    """starting, idle, busy, exiting or dying."""
    age: float
    """Since it became ready; of a starting worker since its start."""
    job: Job | None
    """The job that it runs."""
    job_age: float
    """Since that job began; 0.0 without a job."""
    starts: int
    """Jobs that it has been given."""
    is_replaced: bool
    """It ends when its successor is ready and its job has ended."""
    generation: str
    """The label of its generation."""


def status_of(worker: Worker, pid: int, now: float) -> WorkerStatus:
    """The status of a worker, whose process is `pid`, at the time `now`."""
    job = worker.job
    job_age = now - job.started if job is not None else 0.0
    is_replaced = not worker.holds_slot or worker.retiring
    age, label = now - worker.since, worker.generation.label
    return WorkerStatus(worker.number, pid, worker.state.value, age, job, job_age, worker.starts, is_replaced, label)
