"""The scheduler of a pool: the queue of its jobs, whose slots are worker processes that start, end and are replaced.

    worker   starting ──> idle <──> busy            idle and busy workers are ready
                  └─────────┴───────┴──> exiting ──> dying ──> removed

job_queue.py has the states of a job. These rules predict the rest:

1. A worker becomes available only by its own READY, or by the end of the job that it holds. So a late result cannot
   reach another job, and a fresh worker is never blamed for its predecessor: their numbers differ.
2. A slot of the pool is free only when its worker has ended. A worker that is being replaced, or that the kernel cannot
   end, holds no slot, so its successor may start beside it.
3. At most `size` workers run jobs, with a slot or without: a successor takes no job while that would make one more.
4. New workers are of the scheduler's generation. The failed start of a worker of another one delays no start here.

As in the queue, every event (a job comes, a frame comes, a process ends, time passes, a caller gives up) is one method,
which changes the state and returns instructions. There is no socket, process or clock here.
"""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import JobAbandoned, NoWorkers, PoolClosed, WorkerDied
from .backoff import TOLERATED_FAILURES, StartBackoff
from .crash_loops import CrashLoops
from .job_queue import Instruction, JobQueue
from .state import BUSY, DYING, EXITING, IDLE, RUNNING, START_LIMIT, STARTING, Generation, Job, Worker

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


class StartWorker(Instruction):
    """Start the worker's process. `became_ready` or `died` follows."""

    worker: Worker


class Dismiss(Instruction):
    """Close the worker's channel: an idle worker then closes its resources and exits."""

    worker: Worker


class Kill(Instruction):
    """SIGKILL the worker. `died` follows."""

    worker: Worker


class Scheduler(JobQueue[Worker]):
    """`size` workers, and at most `queue_size` jobs that wait for them. `free` has the idle workers.

    A worker is replaced after `max_jobs` jobs, or when it holds more than `max_memory` bytes after a job (0: never). It
    exits when its successor is ready.
    """

    kills = True

    def __init__(
        self,
        size: int,
        queue_size: int,
        max_jobs: int = 0,
        max_memory: int = 0,
        start_limit: float = START_LIMIT,
        generation: Generation | None = None,
    ) -> None:
        super().__init__(size, queue_size)
        self.max_starts = max_jobs
        self.max_memory = max_memory
        self.start_limit = start_limit
        self.generation = generation or Generation()  # of new workers
        self.workers: dict[int, Worker] = {}
        self.closed = False
        self.backoff = StartBackoff()
        self.mean_start = 0.0  # seconds; a moving average
        self._crash_loops = CrashLoops()
        self._workers_made = 0

    @property
    def ready(self) -> int:
        """Workers that can take a job or run one; never more than `size`."""
        return min(self.size, len(self._ready_workers()))

    def _ready_workers(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state in (IDLE, BUSY)]

    # Jobs

    def _check(self, job: Job, now: float) -> None:
        """Raise JobRefused or NoWorkers."""
        self._crash_loops.refuse(job, now)
        if self.backoff.failures > TOLERATED_FAILURES and not self.ready:
            raise NoWorkers(f"no worker is alive: {self.backoff.last_failure}", math.ceil(self.backoff.pause))
        self.checks_jobs = bool(self._crash_loops.crashes or self.backoff.failures)

    def cancel(self, job: Job, now: float) -> list[Instruction]:
        """As `abandon`, but kill a running job at once."""
        if job.state is RUNNING:
            job.deadline = now
        return self.abandon(job, now, even_running=True)

    def _give_up(self, job: Job, now: float) -> None:
        """A running job still gets the time that a replacement of its worker takes: most jobs end within it."""
        job.abandoned = True
        job.deadline = min(job.deadline, job.started + self.mean_start)
        if job.deadline <= now:
            self._expire(job, now)
            self._dispatch(now)  # its lane has room again, and a successor of its worker may be idle
        else:
            self._wake_at(job.deadline)

    def held_by(self, worker: Worker, number: int) -> Job | None:
        """The job `number` if the worker runs it, else None: a worker can send frames about no other job."""
        jobs = worker.jobs
        return jobs[0] if jobs and jobs[0].number == number and worker.state is BUSY else None

    def done(
        self, worker: Worker, outcome: Any, now: float, memory: int = 0, poisoned: bool = False
    ) -> list[Instruction]:
        """The worker has sent the end of its job. `memory`: bytes that it holds now; `poisoned`: it must not take
        another job.
        """
        (job,) = worker.jobs
        self.backoff.early_ends = 0
        self._leave_slot(worker, now)
        self._finish(job, outcome, now)
        if self.max_memory and memory > self.max_memory:
            self._replace(worker, now)
        if poisoned:
            reason = "ran out of memory" if _is_memory_error(outcome) else "cannot take another job"
            self._kill(worker, reason, now)
        elif worker.replaced:
            self._dismiss(worker, now)
        else:
            worker.state = IDLE
            if not worker.retiring or self.backoff.failures:  # without successors, an old worker goes on
                self.free.append(worker)
        if self.waiting:
            self._dispatch(now)
        todo, self.todo = self.todo, []
        return todo

    def _wear_out(self, worker: Worker, now: float) -> None:
        worker.retiring = True
        self._replace(worker, now)  # now: the successor warms up while the last job runs

    def _leave_work(self, worker: Worker, error: Exception, now: float) -> None:
        """The worker runs no job any more: it has ended, or is given up."""
        if (job := worker.job) is not None:
            self._finish(job, error, now)
        worker.jobs = ()
        self.at_work.pop(worker, None)

    # Deadlines

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed: end what is late, start what may start, and set the next wake-up."""
        self._expire_late(now)
        for worker in list(self.workers.values()):
            if worker.deadline <= now:
                self._overdue(worker, now)
        self._fill_slots(now)
        self._dispatch(now)
        times = [worker.deadline for worker in self.workers.values()]
        if self.backoff.resume_at > now:
            times.append(self.backoff.resume_at)
        self._wake_next(times, now)
        return self.take()

    def postpone(self, seconds: float) -> None:
        super().postpone(seconds)
        for worker in self.workers.values():
            worker.deadline += seconds

    def _expire(self, job: Job, now: float) -> None:
        if job.abandoned:
            self._drop(job, JobAbandoned("the job was abandoned while it ran, and was stopped"), now, late=job.late)
        else:
            super()._expire(job, now)

    def _stop(self, worker: Worker, now: float, *, late: bool) -> None:
        self._kill(worker, PAST_DEADLINE if late else "ran an abandoned job", now)

    def _overdue(self, worker: Worker, now: float) -> None:
        if worker.state is STARTING:
            self._kill(worker, f"was not ready within {self.start_limit:g} s", now)
        elif worker.state is EXITING:
            self._kill(worker, f"took longer than {ORDERLY_END:g} s to close its resources", now)
        elif not worker.kill_reason:
            self._kill(worker, KEPT_RUNNING, now)
        else:  # the kernel cannot end it, or a debugger holds it: go on without it
            worker.deadline, worker.holds_slot = math.inf, False
            died = self._death(worker, f"worker {worker.number} was killed: it {worker.kill_reason}", None)
            self._leave_work(worker, died, now)

    # Workers

    def open(self, now: float) -> list[Instruction]:
        """The forkserver of the generation is there: start the missing workers."""
        self.generation.can_start = True
        self._fill_slots(now)
        return self.take()

    def became_ready(self, worker: Worker, now: float) -> list[Instruction]:
        """A starting worker has sent READY."""
        assert worker.state is STARTING
        self.backoff.started()
        took = now - worker.since
        self.mean_start += (took - self.mean_start) / 10 if self.mean_start else took
        worker.state, worker.started, worker.since, worker.deadline = IDLE, True, now, math.inf
        self.free.append(worker)
        self._retire_replaced(now)
        self._fill_slots(now)
        self._dispatch(now)
        return self.take()

    def died(
        self, worker: Worker, now: float, how: str, exit_code: int | None = None, report: str = ""
    ) -> list[Instruction]:
        """The worker's process has ended as `how` says, or could not be forked. `report` has further details."""
        if self.workers.pop(worker.number, None) is None:
            return []
        self._take_from_free(worker)
        job = worker.job
        counts = worker.generation is self.generation and not self.closed
        unused = not worker.starts and worker.started and not worker.kill_reason and worker.state is not EXITING
        if unused and counts and self.backoff.ended_unused(worker.since, now):
            self._start_failed(how, now)
        if job is not None and not worker.kill_reason:
            self._crash_loops.note(job, now)
            self.checks_jobs = True
        after = f", {now - job.started:.3f} s into the job{report}" if job is not None else ""
        self._leave_work(worker, self._death(worker, f"{how}{after}", exit_code), now)
        worker.state = DYING
        if not worker.started and counts:
            self._start_failed(worker.start_error or how, now)
        self._fill_slots(now)
        self._dispatch(now)
        return self.take()

    def _death(self, worker: Worker, message: str, exit_code: int | None) -> WorkerDied:
        """The error of the job of a worker that has ended."""
        return WorkerDied(message, exit_code)

    def lost_channel(self, worker: Worker, now: float, protocol_error: str = "") -> list[Instruction]:
        """The worker's channel has closed. Usually its process has ended, and `died` follows."""
        if worker.state in (EXITING, DYING):
            pass
        elif protocol_error:
            self._kill(worker, protocol_error, now)
        else:
            self._take_from_free(worker)
            worker.state, worker.deadline = DYING, now + SILENT_END
            self._wake_at(worker.deadline)
        return self.take()

    def kill(self, worker: Worker, reason: str, now: float) -> list[Instruction]:
        """Kill the worker. Its slot is free when its process has ended."""
        self._kill(worker, reason, now)
        return self.take()

    def _kill(self, worker: Worker, reason: str, now: float) -> None:
        if worker.kill_reason:
            return
        self._take_from_free(worker)
        worker.state, worker.kill_reason, worker.deadline = DYING, reason, now + REAP_LIMIT
        self.todo.append(Kill(worker))
        self._wake_at(worker.deadline)

    def start_failed(self, error: str, now: float) -> list[Instruction]:
        """The forkserver could not start: pause, and refuse jobs if no worker is left."""
        self._start_failed(error, now)
        self._dispatch(now)
        return self.take()

    def _start_failed(self, error: str, now: float) -> None:
        self.backoff.failed(error, now)
        self.checks_jobs = True
        self._wake_at(self.backoff.resume_at)
        for worker in self.workers.values():
            if worker.retiring and worker.state is IDLE and worker not in self.free:
                self.free.append(worker)
        if self.backoff.failures > TOLERATED_FAILURES and not self.ready:
            for job in list(self.queued()):
                self._finish(job, NoWorkers(f"no worker is alive: {error}", math.ceil(self.backoff.pause)), now)

    def _replace(self, worker: Worker, now: float) -> None:
        """Start a successor. The worker goes on until the successor is ready."""
        worker.holds_slot = False
        self._fill_slots(now)

    def replace(self, number: int, now: float) -> list[Instruction]:
        """Start a successor of a ready worker, which goes on until the successor is ready and its job has ended.

        Raises:
            LookupError: There is no such worker, or it starts or ends at the moment.
        """
        worker = self.workers.get(number)
        if worker is None or self.closing:
            raise LookupError(f"no worker {number} is at work; it has ended")
        if worker.state not in (IDLE, BUSY):
            raise LookupError(f"worker {number} cannot be replaced: it is {worker.state.value}")
        if worker.holds_slot:
            self._replace(worker, now)
        return self.take()

    def _retire_replaced(self, now: float) -> None:
        """While more workers are ready than there are slots, dismiss the oldest without a slot."""
        ready = [worker for worker in self._ready_workers() if not worker.replaced]
        without_slot = [worker for worker in ready if not worker.holds_slot]
        for worker in without_slot[: max(0, len(ready) - self.size)]:
            worker.replaced = True
            if worker.state is IDLE:
                self._dismiss(worker, now)

    def _dismiss(self, worker: Worker, now: float) -> None:
        self._take_from_free(worker)
        worker.state, worker.deadline = EXITING, now + ORDERLY_END
        self.todo.append(Dismiss(worker))
        self._wake_at(worker.deadline)

    def _take_from_free(self, worker: Worker) -> None:
        if worker in self.free:
            self.free.remove(worker)

    def _fill_slots(self, now: float) -> None:
        """Start the missing workers; after a failed start one at a time, and after its pause."""
        generation = self.generation
        while generation.can_start and not self.closed and now >= self.backoff.resume_at and self._slot_is_free():
            self._start_worker(generation, now)

    def _start_worker(self, generation: Generation, now: float) -> Worker:
        self._workers_made += 1
        worker = Worker(self._workers_made, now, generation, self.start_limit)
        self.workers[worker.number] = worker
        self.todo.append(StartWorker(worker))
        self._wake_at(worker.deadline)
        return worker

    def _slot_is_free(self) -> bool:
        holders = [worker for worker in self.workers.values() if worker.holds_slot]
        one_at_a_time = self.backoff.failures and any(worker.state is STARTING for worker in holders)
        given_up = sum(worker.state is DYING and not worker.holds_slot for worker in self.workers.values())
        too_many = len(self.workers) - given_up >= PROCESSES_PER_SLOT * self.size
        return len(holders) < self.size and not one_at_a_time and not too_many

    def lost_forkserver(self, generation: Generation) -> list[Worker]:
        """The forkserver of a generation has died. Its workers, which are returned, die with it: `died` follows."""
        generation.can_start = False
        workers = [worker for worker in self.workers.values() if worker.generation is generation]
        for worker in workers:
            worker.kill_reason = worker.kill_reason or "lost its forkserver"
        return workers

    def close(self, now: float) -> list[Instruction]:
        """End all jobs and workers for good: idle workers exit in order, the others are killed."""
        self.closing = self.closed = True
        for job in list(self.jobs()):
            self._finish(job, PoolClosed("the pool was shut down before the job ended"), now)
        for worker in list(self.workers.values()):
            if worker.state is IDLE:
                self._dismiss(worker, now)
            elif worker.state is not EXITING:
                self._kill(worker, "ran on while the pool was shut down", now)
        return self.take()


def _is_memory_error(outcome: object) -> bool:
    return getattr(outcome, "type_name", "") == "MemoryError"
