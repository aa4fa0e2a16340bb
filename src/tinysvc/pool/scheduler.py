"""The scheduler of a pool: which worker runs which job, which jobs wait, which workers start and are killed.

    admit ──> lane ──> an idle worker ──> result, deadline, abandonment, or death of the worker
              (FIFO,    (at most one job each)
               bounded)

Two state machines and three rules predict all that follows.

    job      queued ──> running ──> done           `done` is entered once; a later end is discarded
    worker   starting ──> idle <──> busy            idle and busy workers are ready
                  └─────────┴───────┴──> exiting ──> dying ──> removed

1. A worker becomes available only by its own READY, or by the end of the job that it holds. So a late result cannot
   reach another job, and a fresh worker is never blamed for its predecessor: their numbers differ.
2. A slot of the pool is free only when its worker has ended. A worker that is being replaced, or that the kernel cannot
   end, holds no slot, so its successor may start beside it.
3. At most `size` workers run jobs, with a slot or without: a successor takes no job while that would make one more.

Every event (a job comes, a frame comes, a process ends, time passes, a caller gives up) is one method. It changes the
state, and then calls the `Actions` that follow from it. These return at once, and never call back into the scheduler.
There is no socket, process or clock here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

from ..core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    NoWorkers,
    PoolClosed,
    QueueFull,
    WorkerDied,
)
from .backoff import TOLERATED_FAILURES, StartBackoff
from .crash_loops import CrashLoops
from .state import BUSY, DONE, DYING, EXITING, IDLE, QUEUED, RUNNING, START_LIMIT, STARTING, Job, Lane, Worker

PROCESSES_PER_SLOT = 3
"""Processes that a slot may have at a time: one that works, its successor, and one that closes its resources."""

PAST_DEADLINE = "ran a job past its deadline"
"""Kill reason at a deadline: the worker writes its Python stack first."""

SILENT_END = 0.1
"""Seconds between the end of a worker's channel and the end of its process. After that the worker is killed."""

KEPT_RUNNING = "closed its socket and kept running"
"""Kill reason then. On a busy machine the process may have ended nevertheless, and the report of its end is late."""

ORDERLY_END = 2.0
"""Seconds for an exiting worker to close its resources."""

REAP_LIMIT = 1.0
"""Seconds after SIGKILL when a worker's slot is filled although the kernel or a debugger still holds its process."""

TICK = 0.005
"""Seconds between two checks of the deadlines: a thousand jobs that expire in one second cost 200 checks."""


class Actions(Protocol):
    """What the scheduler needs of the dispatcher. No method calls back into the scheduler before it returns."""

    def start_worker(self, worker: Worker) -> None:
        """Start its process. `became_ready` or `died` follows."""

    def send(self, worker: Worker, job: Job) -> None:
        """Send the job to the worker."""

    def dismiss(self, worker: Worker) -> None:
        """Close its channel: an idle worker then closes its resources and exits."""

    def kill(self, worker: Worker) -> None:
        """SIGKILL. `died` follows."""

    def settle(self, job: Job, outcome: Any) -> None:
        """Report the end of the job to its caller."""

    def wake_at(self, when: float) -> None:
        """Call `tick` at this time, or earlier."""


class Scheduler:
    """`size` workers, and at most `queue_size` jobs that wait for them.

    A worker is replaced after `max_jobs` jobs, or when it holds more than `max_memory` bytes after a job (0: never). It
    exits when its successor is ready.
    """

    def __init__(self, actions: Actions, size: int, queue_size: int, max_jobs: int = 0, max_memory: int = 0) -> None:
        self.actions = actions
        self.size = size
        self.queue_size = queue_size
        self.max_jobs = max_jobs
        self.max_memory = max_memory
        self.workers: dict[int, Worker] = {}
        self.idle: list[Worker] = []
        self.at_work: set[Worker] = set()  # workers whose process may still run a job, settled or not
        self.open_lane = Lane()
        self.lanes = [self.open_lane]
        self.waiting = 0  # jobs, over all lanes
        self.can_start = False  # there is a forkserver
        self.closing = self.closed = False
        self.backoff = StartBackoff()
        self.mean_run = 0.0  # seconds; moving averages
        self.mean_start = 0.0
        self._crash_loops = CrashLoops()
        self._jobs_made = self._workers_made = 0

    @property
    def ready(self) -> int:
        """Workers that can take a job or run one; never more than `size`."""
        return min(self.size, len(self._ready_workers()))

    @property
    def retry_after(self) -> int:
        """Whole seconds until a job that comes now starts: the jobs before it, times their mean run time."""
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

    def _ready_workers(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state in (IDLE, BUSY)]

    # Jobs

    def admit(self, job: Job, now: float) -> None:
        """Start the job or queue it. Raises PoolClosed, JobRefused, NoWorkers or QueueFull."""
        if self.closing:
            raise PoolClosed("the pool is shutting down")
        if self._crash_loops.crashes:
            self._crash_loops.refuse(job, now)
        lane = job.lane
        if self.idle and lane.running < lane.limit and len(self.at_work) < self.size:
            self._assign(self.idle.pop(), job, now)
        elif self.backoff.failures > TOLERATED_FAILURES and not self.ready:
            raise NoWorkers(f"no worker is alive: {self.backoff.last_failure}", math.ceil(self.backoff.pause))
        elif self.waiting >= self.queue_size:
            raise QueueFull(f"{self.waiting} jobs wait already; try again later", self.retry_after)
        else:
            lane.waiting[job.number] = job
            self.waiting += 1
        if job.deadline < math.inf:
            self.actions.wake_at(job.deadline)

    def next_number(self) -> int:
        self._jobs_made += 1
        return self._jobs_made

    def lane(self, limit: int) -> Lane:
        """A new lane for jobs that share a limit."""
        lane = Lane(limit)
        self.lanes.append(lane)
        return lane

    def abandon(self, job: Job, now: float, *, even_running: bool) -> None:
        """The caller no longer waits for `job`: take it from the queue; kill it if it runs and `even_running`.

        A running job still gets the time that a replacement of its worker takes: most jobs end by themselves within it.
        """
        if job.state is QUEUED:
            self._finish(job, JobAbandoned("the job was abandoned before it started"), now)
        elif job.state is RUNNING and even_running:
            job.abandoned = True
            job.deadline = min(job.deadline, job.started + self.mean_start)
            if job.deadline <= now:
                self._expire(job, now)
                self._dispatch(now)  # its lane has room again, and a successor of its worker may be idle
            else:
                self.actions.wake_at(job.deadline)

    def cancel(self, job: Job, now: float) -> None:
        """As `abandon`, but kill a running job at once."""
        if job.state is RUNNING:
            job.deadline = now
        self.abandon(job, now, even_running=True)

    def held_by(self, worker: Worker, number: object) -> Job | None:
        """The job `number` if the worker runs it, else None: a worker can send frames about no other job."""
        job = worker.job
        return job if job is not None and job.number == number and worker.state is BUSY else None

    def done(
        self, worker: Worker, job: Job, outcome: Any, now: float, *, memory: int = 0, poisoned: bool = False
    ) -> None:
        """The worker has sent the end of its job. `memory`: bytes that it holds now; `poisoned`: it must not take
        another job.
        """
        self.mean_run = _moving_mean(self.mean_run, now - job.started)
        self.backoff.early_ends = 0
        self._finish(job, outcome, now)
        self.at_work.discard(worker)
        if self.max_memory and memory > self.max_memory:
            self._replace(worker, now)
        if poisoned:
            self.kill(worker, "ran out of memory", now)
        elif worker.replaced:
            self._dismiss(worker, now)
        else:
            worker.state = IDLE
            if not worker.retiring or self.backoff.failures:  # without successors, an old worker goes on
                self.idle.append(worker)
        self._dispatch(now)

    def _assign(self, worker: Worker, job: Job, now: float) -> None:
        worker.state, worker.job = BUSY, job
        self.at_work.add(worker)
        worker.jobs += 1
        job.state, job.worker, job.started = RUNNING, worker, now
        job.lane.running += 1
        self.actions.send(worker, job)
        if self.max_jobs and worker.jobs >= self.max_jobs:
            worker.retiring = True
            self._replace(worker, now)  # now: the successor warms up while the last job runs

    def _dispatch(self, now: float) -> None:
        """Assign queued jobs to idle workers: no worker idles while a job could run."""
        while self.waiting and self.idle and len(self.at_work) < self.size and (job := self._next()) is not None:
            if job.deadline <= now:
                self._expire(job, now)
            else:
                self._take_from_queue(job)
                self._assign(self.idle.pop(), job, now)

    def _next(self) -> Job | None:
        """The job that has waited longest, of the lanes below their limit."""
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
        """End a job. The caller decides what its worker does next."""
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
        self.actions.settle(job, outcome)

    # Deadlines

    def tick(self, now: float) -> None:
        """Time has passed: end what is late, start what may start, and set the next wake-up."""
        for job in list(self.jobs()):
            if job.deadline <= now:
                self._expire(job, now)
        for worker in list(self.workers.values()):
            if worker.deadline <= now:
                self._overdue(worker, now)
        self._fill_slots(now)
        self._dispatch(now)
        times = [job.deadline for job in self.jobs()] + [worker.deadline for worker in self.workers.values()]
        next_time = min(times, default=math.inf)
        if self.backoff.resume_at > now:
            next_time = min(next_time, self.backoff.resume_at)
        if next_time < math.inf:
            self.actions.wake_at(max(next_time, now + TICK))

    def postpone(self, seconds: float) -> None:
        """Postpone all deadlines: for these seconds the server, and perhaps the workers, did not run."""
        for job in self.jobs():
            job.deadline += seconds
        for worker in self.workers.values():
            worker.deadline += seconds

    def _expire(self, job: Job, now: float) -> None:
        worker = job.worker
        if worker is None:
            error = DeadlineInQueue(f"the job waited past its deadline of {job.timeout:g} s", self.retry_after)
            self._finish(job, error, now)
        elif job.abandoned:
            self._finish(job, JobAbandoned("the job was abandoned while it ran, and was stopped"), now)
            self.kill(worker, PAST_DEADLINE if job.late else "ran an abandoned job", now)
        else:
            self._finish(job, DeadlineExceeded(f"the job ran past its deadline of {job.timeout:g} s"), now)
            self.kill(worker, PAST_DEADLINE, now)

    def _overdue(self, worker: Worker, now: float) -> None:
        if worker.state is STARTING:
            self.kill(worker, f"was not ready within {START_LIMIT:g} s", now)
        elif worker.state is EXITING:
            self.kill(worker, f"took longer than {ORDERLY_END:g} s to close its resources", now)
        elif not worker.kill_reason:
            self.kill(worker, KEPT_RUNNING, now)
        else:  # the kernel cannot end it, or a debugger holds it: go on without it
            worker.deadline, worker.holds_slot = math.inf, False
            self.at_work.discard(worker)
            if worker.job is not None:
                died = WorkerDied(f"worker {worker.number} was killed: it {worker.kill_reason}")
                self._finish(worker.job, died, now)

    # Workers

    def open(self, now: float) -> None:
        """A forkserver is there: start the missing workers."""
        self.can_start = True
        self._fill_slots(now)

    def became_ready(self, worker: Worker, now: float) -> bool:
        """The worker has sent READY. False if that is a protocol error."""
        if worker.state is not STARTING:
            return False
        self.backoff.started()
        self.mean_start = _moving_mean(self.mean_start, now - worker.since)
        worker.state, worker.started, worker.since, worker.deadline = IDLE, True, now, math.inf
        self.idle.append(worker)
        self._retire_replaced(now)
        self._fill_slots(now)
        self._dispatch(now)
        return True

    def died(self, worker: Worker, now: float, how: str, exit_code: int | None = None, report: str = "") -> None:
        """The worker's process has ended as `how` says, or could not be forked. `report` has further details."""
        if self.workers.pop(worker.number, None) is None:
            return
        self._take_from_idle(worker)
        self.at_work.discard(worker)
        job = worker.job
        unused = not worker.jobs and worker.started and not worker.kill_reason and worker.state is not EXITING
        if unused and not self.closed and self.backoff.ended_unused(worker.since, now):
            self.start_failed(how, now)
        if job is not None:
            if not worker.kill_reason:
                self._crash_loops.note(job, now)
            message = f"{how}, {now - job.started:.3f} s into the job{report}"
            self._finish(job, WorkerDied(message, exit_code), now)
        worker.state = DYING
        if not worker.started and not self.closed:
            self.start_failed(worker.start_error or how, now)
        self._fill_slots(now)
        self._dispatch(now)

    def lost_channel(self, worker: Worker, now: float, protocol_error: str = "") -> None:
        """The worker's channel has closed. Usually its process has ended, and `died` follows."""
        if worker.state in (EXITING, DYING):
            return
        if protocol_error:
            self.kill(worker, protocol_error, now)
            return
        self._take_from_idle(worker)
        worker.state, worker.deadline = DYING, now + SILENT_END
        self.actions.wake_at(worker.deadline)

    def kill(self, worker: Worker, reason: str, now: float) -> None:
        """Kill the worker. Its slot is free when its process has ended."""
        if worker.kill_reason:
            return
        self._take_from_idle(worker)
        worker.state, worker.kill_reason, worker.deadline = DYING, reason, now + REAP_LIMIT
        self.actions.kill(worker)
        self.actions.wake_at(worker.deadline)

    def start_failed(self, error: str, now: float) -> None:
        """A worker or the forkserver could not start: pause, and refuse jobs if no worker is left."""
        self.backoff.failed(error, now)
        self.actions.wake_at(self.backoff.resume_at)
        for worker in self.workers.values():
            if worker.retiring and worker.state is IDLE and worker not in self.idle:
                self.idle.append(worker)
        if self.backoff.failures > TOLERATED_FAILURES and not self.ready:
            for job in list(self.queued()):
                self._finish(job, NoWorkers(f"no worker is alive: {error}", math.ceil(self.backoff.pause)), now)

    def _replace(self, worker: Worker, now: float) -> None:
        """Start a successor. The worker goes on until the successor is ready."""
        worker.holds_slot = False
        self._fill_slots(now)

    def _retire_replaced(self, now: float) -> None:
        """While more workers are ready than there are slots, dismiss the oldest without a slot."""
        ready = [worker for worker in self._ready_workers() if not worker.replaced]
        without_slot = [worker for worker in ready if not worker.holds_slot]
        for worker in without_slot[: max(0, len(ready) - self.size)]:
            worker.replaced = True
            if worker.state is IDLE:
                self._dismiss(worker, now)

    def _dismiss(self, worker: Worker, now: float) -> None:
        self._take_from_idle(worker)
        worker.state, worker.deadline = EXITING, now + ORDERLY_END
        self.actions.dismiss(worker)
        self.actions.wake_at(worker.deadline)

    def _take_from_idle(self, worker: Worker) -> None:
        if worker in self.idle:
            self.idle.remove(worker)

    def _fill_slots(self, now: float) -> None:
        """Start the missing workers; after a failed start one at a time, and after its pause."""
        while self.can_start and not self.closed and now >= self.backoff.resume_at and self._slot_is_free():
            self._workers_made += 1
            worker = Worker(self._workers_made, now)
            self.workers[worker.number] = worker
            self.actions.start_worker(worker)

    def _slot_is_free(self) -> bool:
        holders = [worker for worker in self.workers.values() if worker.holds_slot]
        one_at_a_time = self.backoff.failures and any(worker.state is STARTING for worker in holders)
        given_up = sum(worker.state is DYING and not worker.holds_slot for worker in self.workers.values())
        too_many = len(self.workers) - given_up >= PROCESSES_PER_SLOT * self.size
        return len(holders) < self.size and not one_at_a_time and not too_many

    def lost_forkserver(self) -> None:
        """The forkserver has died. All workers die with it: `died` follows for each."""
        self.can_start = False
        for worker in self.workers.values():
            worker.kill_reason = worker.kill_reason or "lost its forkserver"

    def close(self, now: float) -> None:
        """End all jobs and workers for good: idle workers exit in order, the others are killed."""
        self.closing = self.closed = True
        for job in list(self.jobs()):
            self._finish(job, PoolClosed("the pool was shut down before the job ended"), now)
        for worker in list(self.workers.values()):
            if worker.state is IDLE:
                self._dismiss(worker, now)
            elif worker.state is not EXITING:
                self.kill(worker, "ran on while the pool was shut down", now)


def _moving_mean(old: float, new: float) -> float:
    """The moving average over about ten values."""
    return new if not old else old + (new - old) / 10
