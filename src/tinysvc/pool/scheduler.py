"""The pool's books: who runs what, who waits, who is to die. Synchronous, without a socket, a process or a clock.

    admit ──> lane ──> a worker that is idle ──> done, expired, abandoned, or its worker's death
              (FIFO,    (at most one job each)
               bounded)

Two state machines and two rules predict all that follows.

    job      queued ──> running ──> done           `done` is entered once; whoever comes second is not heard
    worker   starting ──> idle <──> busy            a worker that is ready
                  └─────────┴───────┴──> leaving ──> dying ──> gone

1. A worker becomes available only through its own `ready` or through the end of the very job that it holds. So a late
   result cannot reach another job, and a fresh worker is never blamed for its predecessor: they have different numbers.
2. A place in the pool is free only when its worker has ended. A worker that is `counted` holds a place; one that is
   being renewed, or that the kernel cannot end, holds none, and so its successor may start beside it.
3. At most `size` workers are at work, counted or not: a successor takes no job while that would make one more.

Every event (a job comes, a frame comes, a process ends, time passes, somebody leaves) is one method. It changes the
books and then tells the `Hands` what to do; hands return at once and never call back into the books.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from typing import Any, Protocol

from ..core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    JobRefused,
    NoWorkers,
    PoolClosed,
    QueueFull,
    WorkerDied,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a worker that could not be started is tried again; doubled each time."""

LONE_FAILURE = 1
"""Workers in a row that did not become ready for which jobs still wait: something outside may have killed one as it
started, and the next is there a moment later. From the second on, a pool without a worker refuses jobs."""

EARLY_END, EARLY_ENDS = 10.0, 3
"""A worker that dies within so many seconds of being ready, before its first job, ended early. From this many such ends
in a row on, the next worker starts after a pause, as one that could not be started. A job that is done, by any worker,
shows that workers can work: something outside killed them, and a pause would only take workers from requests."""

PROCESSES_PER_PLACE = 3
"""Processes that a place may have at a time: one that works, its successor, and one that closes its resources."""

START_LIMIT = 600.0
"""Seconds a worker may take to be ready: models are large, but none that takes ten minutes comes back at all."""

PAST_DEADLINE = "ran a job past its deadline"
"""Why a worker is killed at a deadline: it writes its Python stack first."""

SILENT_END = 0.1
"""Seconds between the end of a worker's channel and of its process; one that takes longer is killed."""

WENT_ON = "closed its socket and went on"
"""Why it is killed then. On a busy machine it may have ended nonetheless, and nobody has said so in time."""

ORDERLY_END = 2.0
"""Seconds a worker that leaves gets to close its resources."""

REAP_LIMIT = 1.0
"""Seconds after its SIGKILL when the place of a worker that the kernel or a debugger still holds is filled anyway."""

TICK = 0.005
"""Seconds between two looks at the deadlines: a thousand jobs that expire in a second cost 200 looks."""

CRASH_LIMIT, CRASH_WINDOW = 3, 10.0
"""A job that has crashed so many workers within so many seconds is refused until the first crash is that old."""


class JobState(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class WorkerState(enum.Enum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    LEAVING = "leaving"
    DYING = "dying"


QUEUED, RUNNING, DONE = JobState
STARTING, IDLE, BUSY, LEAVING, DYING = WorkerState
# As plain names: in CPython 3.11 a member looked up on its class costs as much as two calls.


class Lane:
    """The jobs that wait together; at most `limit` of them run at a time."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: OrderedDict[int, Job] = OrderedDict()


class Job:
    """One call in the pool. What it carries (`kind`, `frame`, `body` or `arena`) and who gets its end (`future`,
    `stream`) is the hands' affair.

    `key` names what is asked, where asking the same again would do the same: see CRASH_LIMIT.
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
        self.started = 0.0  # 0.0: never
        self.settled = 0.0  # when its answer was there, or began
        self.queued = self.ran = 0.0  # seconds it waited, and ran until then; true as soon as it is settled
        self.state = QUEUED
        self.late = False  # abandoned since a deadline that the pool does not know has passed
        self.abandoned = False  # it runs on for a moment, though nobody waits for it
        self.worker: Worker | None = None
        self.kind = 0
        self.frame = self.body = b""
        self.arena: Any = None
        self.future: Any = None
        self.stream: Any = None

    def settle(self, now: float) -> None:
        """Its answer is there, or begins."""
        self.settled = now
        started = self.started or now
        self.queued, self.ran = started - self.admitted, now - started

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.state.value}>"


class Worker:
    """One worker process, as the books see it. `link` is the hands' affair: its channel and descriptors."""

    __slots__ = (
        "counted",
        "failure",
        "job",
        "jobs",
        "last",
        "link",
        "number",
        "since",
        "spent",
        "started",
        "state",
        "until",
        "why",
    )

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.state = STARTING
        self.started = False  # it has been ready
        self.since = now
        self.until = now + START_LIMIT  # when something must have happened
        self.job: Job | None = None
        self.jobs = 0
        self.counted = True  # it holds a place; a successor may not start beside it
        self.spent = False  # it gets no more jobs, and leaves when its successor is there
        self.last = False  # its successor is there: it leaves after the job it holds
        self.failure = ""  # why it could not be ready, in its own words
        self.why = ""  # why we killed it
        self.link: Any = None

    def __repr__(self) -> str:
        job = f" {self.job!r}" if self.job else ""
        return f"<Worker {self.number} {self.state.value}{job}>"


class Hands(Protocol):
    """What the books decide, done. None of these calls back into the books before it returns."""

    def start_worker(self, worker: Worker) -> None:
        """Start its process. The answer is `became_ready` or `died`."""

    def send(self, worker: Worker, job: Job) -> None:
        """Give it the job."""

    def dismiss(self, worker: Worker) -> None:
        """Close its channel: an idle worker then closes its resources and ends."""

    def kill(self, worker: Worker) -> None:
        """SIGKILL. The answer is `died`."""

    def settle(self, job: Job, outcome: Any) -> None:
        """Tell who waits for the job."""

    def wake_at(self, when: float) -> None:
        """Call `tick` at this time, if not earlier."""


class Books:
    """`size` workers, and at most `queue_size` jobs that wait for them.

    `max_jobs` and `max_memory` (bytes): a worker that has done so many jobs, or holds so much after one, is renewed:
    its successor is started, and it leaves when that one is ready. 0: never.
    """

    def __init__(self, hands: Hands, size: int, queue_size: int, max_jobs: int = 0, max_memory: int = 0) -> None:
        self.hands = hands
        self.size = size
        self.queue_size = queue_size
        self.max_jobs = max_jobs
        self.max_memory = max_memory
        self.workers: dict[int, Worker] = {}
        self.idle: list[Worker] = []
        self.at_work: set[Worker] = set()  # those whose process may still run a job, whether it is settled or not
        self.open_lane = Lane()
        self.lanes = [self.open_lane]
        self.waiting = 0  # jobs, over all lanes
        self.can_start = False  # there is a forkserver
        self.closing = self.closed = False
        self.failures = 0  # workers in a row that did not become ready
        self.last_failure = ""
        self.mean_run = 0.0  # seconds; moving averages
        self.mean_start = 0.0
        self._resume_at = 0.0  # no worker is started before
        self._early_ends = 0  # in a row
        self._last_early_end = -math.inf
        self._crashes: dict[int, deque[float]] = {}  # hash of a job's key -> when it crashed workers
        self._crashes_until = 0.0
        self._jobs_made = self._workers_made = 0

    @property
    def ready(self) -> int:
        """How many workers can take a job or are at work on one; never more than `size`."""
        return min(self.size, len(self._serving()))

    @property
    def pause(self) -> float:
        """Seconds until a worker is started again, where the last could not be."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20))

    @property
    def retry_after(self) -> int:
        """Whole seconds until a job that came now would start: those before it, times their mean run time."""
        return max(1, math.ceil((self.waiting + 1) * self.mean_run / self.size))

    def queued(self) -> Iterator[Job]:
        for lane in self.lanes:
            yield from lane.waiting.values()

    def jobs(self) -> Iterator[Job]:
        """All jobs that have not ended."""
        yield from self.queued()
        for worker in self.workers.values():
            if worker.job is not None:
                yield worker.job

    def _serving(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state in (IDLE, BUSY)]

    # Jobs come and go

    def admit(self, job: Job, now: float) -> None:
        """Start the job or let it wait. PoolClosed, JobRefused, NoWorkers or QueueFull if it can do neither."""
        if self.closing:
            raise PoolClosed("the pool is shutting down")
        if self._crashes:
            self._refuse_crash_loop(job, now)
        lane = job.lane
        if self.idle and lane.running < lane.limit and len(self.at_work) < self.size:
            self._assign(self.idle.pop(), job, now)
        elif self.failures > LONE_FAILURE and not self.ready:
            raise NoWorkers(f"no worker is alive: {self.last_failure}", math.ceil(self.pause))
        elif self.waiting >= self.queue_size:
            raise QueueFull(f"{self.waiting} jobs wait already; try again later", self.retry_after)
        else:
            lane.waiting[job.number] = job
            self.waiting += 1
        if job.deadline < math.inf:
            self.hands.wake_at(job.deadline)

    def next_number(self) -> int:
        self._jobs_made += 1
        return self._jobs_made

    def lane(self, limit: int) -> Lane:
        """A lane of its own for the jobs that share a limit."""
        lane = Lane(limit)
        self.lanes.append(lane)
        return lane

    def abandon(self, job: Job, now: float, *, even_running: bool) -> None:
        """Nobody waits for `job` any more: take it from the queue; if it runs, kill it only if told to.

        A running job is given as long as a replacement of its worker takes: most end by themselves in that time.
        """
        if job.state is QUEUED:
            self._finish(job, JobAbandoned("nobody waits for the job any more; it was not started"), now)
        elif job.state is RUNNING and even_running:
            job.abandoned = True
            job.deadline = min(job.deadline, job.started + self.mean_start)
            if job.deadline <= now:
                self._expire(job, now)
                self._dispatch(now)  # its lane has room again, and a successor of its worker may be idle
            else:
                self.hands.wake_at(job.deadline)

    def cancel(self, job: Job, now: float) -> None:
        """As `abandon`, but a running job is killed at once, however young."""
        if job.state is RUNNING:
            job.deadline = now
        self.abandon(job, now, even_running=True)

    def held_by(self, worker: Worker, number: object) -> Job | None:
        """The job `number`, if the worker is at work on it: a frame of this worker can be about no other."""
        job = worker.job
        return job if job is not None and job.number == number and worker.state is BUSY else None

    def done(
        self, worker: Worker, job: Job, outcome: Any, now: float, *, memory: int = 0, poisoned: bool = False
    ) -> None:
        """The worker has sent the end of the job it holds. `memory`: bytes it holds now; `poisoned`: it must go."""
        self.mean_run = _mean(self.mean_run, now - job.started)
        self._early_ends = 0
        self._finish(job, outcome, now)
        self.at_work.discard(worker)
        if self.max_memory and memory > self.max_memory:
            self._renew(worker, now)
        if poisoned:
            self.kill(worker, "ran out of memory", now)
        elif worker.last:
            self._dismiss(worker, now)
        else:
            worker.state = IDLE
            if not worker.spent or self.failures:  # an old worker is better than none
                self.idle.append(worker)
        self._dispatch(now)

    def _assign(self, worker: Worker, job: Job, now: float) -> None:
        worker.state, worker.job = BUSY, job
        self.at_work.add(worker)
        worker.jobs += 1
        job.state, job.worker, job.started = RUNNING, worker, now
        job.lane.running += 1
        self.hands.send(worker, job)
        if self.max_jobs and worker.jobs >= self.max_jobs:
            worker.spent = True
            self._renew(worker, now)  # now, so that the successor warms up while the last job runs

    def _dispatch(self, now: float) -> None:
        """Idle workers take what waits: no worker idles while a job could run."""
        while self.waiting and self.idle and len(self.at_work) < self.size and (job := self._next()) is not None:
            if job.deadline <= now:
                self._expire(job, now)
            else:
                self._take_from_queue(job)
                self._assign(self.idle.pop(), job, now)

    def _next(self) -> Job | None:
        """The job that has waited longest in a lane that may run another."""
        best = None
        for lane in self.lanes:
            if lane.waiting and lane.running < lane.limit:
                first = next(iter(lane.waiting.values()))
                if best is None or first.number < best.number:
                    best = first
        return best

    def _take_from_queue(self, job: Job) -> None:
        del job.lane.waiting[job.number]
        self.waiting -= 1

    def _finish(self, job: Job, outcome: Any, now: float) -> None:
        """A job ends, in whatever way. What its worker does next is decided by the caller."""
        if job.state is DONE:
            return
        if job.worker is not None:
            job.lane.running -= 1
            job.worker.job = None
            job.worker = None
        else:
            self._take_from_queue(job)
        job.state = DONE
        if not job.settled:
            job.settle(now)
        self.hands.settle(job, outcome)

    # Deadlines

    def tick(self, now: float) -> None:
        """Time has passed: end what is late, start what may start, and say when to look again."""
        for job in list(self.jobs()):
            if job.deadline <= now:
                self._expire(job, now)
        for worker in list(self.workers.values()):
            if worker.until <= now:
                self._overdue(worker, now)
        self._fill_up(now)
        self._dispatch(now)
        times = [job.deadline for job in self.jobs()] + [worker.until for worker in self.workers.values()]
        next_time = min(times, default=math.inf)
        if self._resume_at > now:
            next_time = min(next_time, self._resume_at)
        if next_time < math.inf:
            self.hands.wake_at(max(next_time, now + TICK))

    def put_off(self, seconds: float) -> None:
        """For so long nobody could look, and workers may not have run: all that is due comes so much later."""
        for job in self.jobs():
            job.deadline += seconds
        for worker in self.workers.values():
            worker.until += seconds

    def _expire(self, job: Job, now: float) -> None:
        worker = job.worker
        if worker is None:
            error = DeadlineInQueue(f"the job waited past its deadline of {job.timeout:g} s", self.retry_after)
            self._finish(job, error, now)
        elif job.abandoned:
            self._finish(job, JobAbandoned("nobody waits for the job any more; it was stopped"), now)
            why = PAST_DEADLINE if job.late else "ran a job that nobody waited for any more"
            self.kill(worker, why, now)
        else:
            self._finish(job, DeadlineExceeded(f"the job ran past its deadline of {job.timeout:g} s"), now)
            self.kill(worker, PAST_DEADLINE, now)

    def _overdue(self, worker: Worker, now: float) -> None:
        if worker.state is STARTING:
            self.kill(worker, f"was not ready within {START_LIMIT:g} s", now)
        elif worker.state is LEAVING:
            self.kill(worker, f"took longer than {ORDERLY_END:g} s to close its resources", now)
        elif not worker.why:
            self.kill(worker, WENT_ON, now)
        else:  # the kernel cannot end it, or a debugger holds it: go on without it
            worker.until, worker.counted = math.inf, False
            self.at_work.discard(worker)
            if worker.job is not None:
                self._finish(worker.job, WorkerDied(f"worker {worker.number} was killed: it {worker.why}"), now)

    # Workers come and go

    def open(self, now: float) -> None:
        """There is a forkserver now: start what is missing."""
        self.can_start = True
        self._fill_up(now)

    def became_ready(self, worker: Worker, now: float) -> bool:
        """The worker says that it is ready. False if it should not have said so."""
        if worker.state is not STARTING:
            return False
        self.failures, self.last_failure, self._resume_at = 0, "", 0.0
        self.mean_start = _mean(self.mean_start, now - worker.since)
        worker.state, worker.started, worker.since, worker.until = IDLE, True, now, math.inf
        self.idle.append(worker)
        self._let_renewed_go(now)
        self._fill_up(now)
        self._dispatch(now)
        return True

    def died(self, worker: Worker, now: float, how: str, exit_code: int | None = None, report: str = "") -> None:
        """Its process has ended, or could not even be forked. `report`: what is known beyond `how`."""
        if self.workers.pop(worker.number, None) is None:
            return
        self._take_from_idle(worker)
        self.at_work.discard(worker)
        job = worker.job
        if not worker.jobs and worker.started and not worker.why and worker.state is not LEAVING:
            self._note_early_end(worker, how, now)
        if job is not None:
            if not worker.why:
                self._note_crash(job, now)
            message = f"{how}, {now - job.started:.3f} s into the job{report}"
            self._finish(job, WorkerDied(message, exit_code), now)
        worker.state = DYING
        if not worker.started and not self.closed:
            self._start_failed(worker.failure or how, now)
        self._fill_up(now)
        self._dispatch(now)

    def lost_channel(self, worker: Worker, now: float, broken_rule: str = "") -> None:
        """Its channel has closed. Mostly its process has ended and `died` follows; or it broke a rule, or lives on."""
        if worker.state in (LEAVING, DYING):
            return
        if broken_rule:
            self.kill(worker, broken_rule, now)
            return
        self._take_from_idle(worker)
        worker.state, worker.until = DYING, now + SILENT_END
        self.hands.wake_at(worker.until)

    def kill(self, worker: Worker, why: str, now: float) -> None:
        """It ends now, and its place is free when it has ended."""
        if worker.why:
            return
        self._take_from_idle(worker)
        worker.state, worker.why, worker.until = DYING, why, now + REAP_LIMIT
        self.hands.kill(worker)
        self.hands.wake_at(worker.until)

    def start_failed(self, text: str, now: float) -> None:
        """The forkserver itself could not start."""
        self._start_failed(text, now)

    def _start_failed(self, text: str, now: float) -> None:
        self.failures += 1
        self.last_failure = text
        self._resume_at = now + self.pause
        self.hands.wake_at(self._resume_at)
        for worker in self.workers.values():
            if worker.spent and worker.state is IDLE and worker not in self.idle:
                self.idle.append(worker)
        if self.failures > LONE_FAILURE and not self.ready:
            for job in list(self.queued()):
                self._finish(job, NoWorkers(f"no worker is alive: {text}", math.ceil(self.pause)), now)

    def _note_early_end(self, worker: Worker, how: str, now: float) -> None:
        """A worker has died before its first job: pause if that happens again and again."""
        if now - self._last_early_end > EARLY_END + LONGEST_PAUSE:
            self._early_ends = 0
        if now - worker.since < EARLY_END and not self.closed:
            self._early_ends, self._last_early_end = self._early_ends + 1, now
            if self._early_ends >= EARLY_ENDS:
                self.failures = max(self.failures, self._early_ends - EARLY_ENDS)
                self._start_failed(how, now)

    def _renew(self, worker: Worker, now: float) -> None:
        """It goes on until a successor is there, which may start at once."""
        worker.counted = False
        self._fill_up(now)

    def _let_renewed_go(self, now: float) -> None:
        """As soon as more workers serve than there are places, the longest renewed leave."""
        serving = [worker for worker in self._serving() if not worker.last]
        renewed = [worker for worker in serving if not worker.counted]
        for worker in renewed[: max(0, len(serving) - self.size)]:
            worker.last = True
            if worker.state is IDLE:
                self._dismiss(worker, now)

    def _dismiss(self, worker: Worker, now: float) -> None:
        self._take_from_idle(worker)
        worker.state, worker.until = LEAVING, now + ORDERLY_END
        self.hands.dismiss(worker)
        self.hands.wake_at(worker.until)

    def _take_from_idle(self, worker: Worker) -> None:
        if worker in self.idle:
            self.idle.remove(worker)

    def _fill_up(self, now: float) -> None:
        """Start what is missing; after a failed start one at a time, and not before its pause is over."""
        while self.can_start and not self.closed and now >= self._resume_at and self._place_is_free():
            self._workers_made += 1
            worker = Worker(self._workers_made, now)
            self.workers[worker.number] = worker
            self.hands.start_worker(worker)

    def _place_is_free(self) -> bool:
        counted = [worker for worker in self.workers.values() if worker.counted]
        one_at_a_time = self.failures and any(worker.state is STARTING for worker in counted)
        given_up = sum(worker.state is DYING and not worker.counted for worker in self.workers.values())
        too_many = len(self.workers) - given_up >= PROCESSES_PER_PLACE * self.size
        return len(counted) < self.size and not one_at_a_time and not too_many

    def lost_forkserver(self) -> None:
        """All workers die with it; `died` follows for each."""
        self.can_start = False
        for worker in self.workers.values():
            worker.why = worker.why or "lost its forkserver"

    def close(self, now: float) -> None:
        """No job and no worker from now on: idle workers leave in order, the others are killed."""
        self.closing = self.closed = True
        for job in list(self.jobs()):
            self._finish(job, PoolClosed("the pool was shut down before the job ended"), now)
        for worker in list(self.workers.values()):
            if worker.state is IDLE:
                self._dismiss(worker, now)
            elif worker.state is not LEAVING:
                self.kill(worker, "ran on while the pool was shut down", now)

    # A job that crashes every worker it gets

    def _note_crash(self, job: Job, now: float) -> None:
        if job.key is not None:
            self._crashes.setdefault(hash(job.key), deque(maxlen=CRASH_LIMIT)).append(now)
            self._crashes_until = now + CRASH_WINDOW

    def _refuse_crash_loop(self, job: Job, now: float) -> None:
        if now > self._crashes_until:
            self._crashes.clear()
        times = self._crashes.get(hash(job.key)) if job.key is not None else None
        if times is not None and len(times) == CRASH_LIMIT and now - times[0] < CRASH_WINDOW:
            raise JobRefused(
                f"this job has crashed {CRASH_LIMIT} workers within {CRASH_WINDOW:g} s, and is not tried again for "
                f"{times[0] + CRASH_WINDOW - now:.0f} s"
            )


def _mean(old: float, new: float) -> float:
    """A moving average over about ten values."""
    return new if not old else old + (new - old) / 10
