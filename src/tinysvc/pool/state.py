"""The state of a pool: its jobs, the lanes that they wait in, and its workers. scheduler.py changes it."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

START_LIMIT = 600.0
"""Seconds for a worker to become ready. Models are large, but one that takes ten minutes to load never ends."""


class JobState(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class WorkerState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    EXITING = "exiting"
    DYING = "dying"


QUEUED, RUNNING, DONE = JobState
STARTING, IDLE, BUSY, EXITING, DYING = WorkerState
# As module globals: in CPython 3.11, looking up a member on its class costs as much as two calls.


class Lane:
    """Jobs that wait together. At most `limit` of them run at a time."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: OrderedDict[int, Job] = OrderedDict()


class Job:
    """One call in the pool.

    The dispatcher uses what the job carries (`kind`, `frame`, `body` or `arena`) and where its end goes (`future`,
    `stream`); the scheduler does not.

    Args:
        number: Unique in the pool, in the order of the calls.
        lane: Where the job waits.
        timeout: Seconds until its deadline; None: no deadline.
        now: The time of the clock, in seconds.
        key: Equal for jobs that do the same: see crash_loops.CRASH_LIMIT.
    """

    __slots__ = (
        "abandoned",
        "admitted",
        "arena",
        "body",
        "deadline",
        "frame",
        "future",
        "key",
        "kind",
        "lane",
        "late",
        "number",
        "queued",
        "ran",
        "settled",
        "started",
        "state",
        "stream",
        "timeout",
        "worker",
    )

    def __init__(self, number: int, lane: Lane, timeout: float | None, now: float, key: Hashable = None) -> None:
        self.number = number
        self.lane = lane
        self.timeout = timeout
        self.deadline = math.inf if timeout is None else now + timeout
        self.key = key
        self.admitted = now
        self.started = 0.0  # 0.0: not started
        self.settled = 0.0  # when its result came, or its stream began
        self.queued = self.ran = 0.0  # seconds that it waited, and ran until `settled`; valid when it is settled
        self.state = QUEUED
        self.late = False  # abandoned because of a deadline that the pool does not know
        self.abandoned = False  # its caller no longer waits; it may run for another moment
        self.worker: Worker | None = None
        self.kind: Any = None  # a class of frames.py: RunProgram, Call or CallStream
        self.frame = self.body = b""
        self.arena: Any = None
        self.future: Any = None
        self.stream: Any = None

    def settle(self, now: float) -> None:
        """Note the time at which its result comes, or its stream begins."""
        self.settled = now
        started = self.started or now
        self.queued, self.ran = started - self.admitted, now - started

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.state.value}>"


class Worker:
    """One worker process. The dispatcher uses `channel`; the scheduler does not."""

    __slots__ = (
        "channel",
        "deadline",
        "holds_slot",
        "job",
        "jobs",
        "kill_reason",
        "number",
        "replaced",
        "retiring",
        "since",
        "start_error",
        "started",
        "state",
    )

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.state = STARTING
        self.started = False  # it has been ready
        self.since = now  # when it was started, or became ready
        self.deadline = now + START_LIMIT  # by which it must have reached its next state
        self.job: Job | None = None
        self.jobs = 0  # that it has been given
        self.holds_slot = True  # no successor may start beside it
        self.retiring = False  # it gets no further jobs, and exits when its successor is ready
        self.replaced = False  # its successor is ready: it exits after its present job
        self.start_error = ""  # why it could not become ready, in its own words
        self.kill_reason = ""
        self.channel: Any = None

    def __repr__(self) -> str:
        job = f" {self.job!r}" if self.job else ""
        return f"<Worker {self.number} {self.state.value}{job}>"
