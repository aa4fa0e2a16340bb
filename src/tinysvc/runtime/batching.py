"""Batches: requests of one route that are computed together; each gets its own response.

    submit_job ────> waiting ─────────────> a batch: one job in the pool ──> a response for each request
                     (oldest first, bound   (at most as many at a time
                     as the pool's queue)   as it may have workers)

*Start of a batch.* A batch starts when the pool has a worker for it, and either `size` requests wait or the oldest has
waited `wait` seconds. So an idle worker waits at most `wait` seconds. While all workers are busy, requests gather here,
where a disconnect can still remove them, instead of in a batch in the pool's queue.

*Deadlines and disconnects.* Each request has its own deadline: DeadlineInQueue before its batch starts, and
DeadlineExceeded afterwards. A request whose client disconnects is dropped; the others of its batch get their responses.
The batch is killed only when all of its requests are abandoned. If its worker dies, all of its requests fail, and none
runs again.

The decisions are those of pool/job_queue.py: a slot of its queue is a batch, which is itself one job in the pool.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, cast

from ..core.errors import PoolError, RemoteError
from ..pool.alarm import Alarm
from ..pool.arena import BIG, Arena
from ..pool.job_queue import Grouping, Instruction, JobQueue, Run, Settle, Stop, WakeAt
from ..pool.job_reply import JobReply, settle
from ..pool.state import DONE, Job, Lane, Slot
from .cpu_messages import BatchMessage

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from ..service.routes import Batch

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of all bodies in a batch of several requests: the event loop joins them, at some GB/s."""


class Batcher:
    """Collects the requests of one route into batches for a pool."""

    def __init__(
        self, pool: ProcessPoolExecutor | ExternalPool, number: int, batch: Batch, lane: Lane | None = None
    ) -> None:
        self._pool = pool
        self._number = number
        self._lane = lane
        grouping = Grouping(batch.size, batch.wait, MAX_BATCH_BYTES)
        self._queue: JobQueue[Slot] = JobQueue(0, pool.queue_size, grouping, reports_start=True)
        self._alarm = Alarm(self._on_alarm, self._queue.postpone)

    # Requests

    def submit_job(self, job: Job) -> Job:
        """As a pool has it; `job.meta` is a RequestMessage, and `job.lane` not used. QueueFull if too much waits."""
        queue = self._queue
        job.number, job.lane = next(queue.numbers), None
        job.pool, job.future = self, asyncio.get_running_loop().create_future()
        self._resize()
        slot = queue.admit(job, monotonic(), self._pool.waiting)
        self._carry_out([*([Run(slot)] if slot is not None else ()), *queue.take()])
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        """Discard the request. A running batch continues unless `even_running` and all its requests are abandoned."""
        self._note_starts()
        self._carry_out(self._queue.abandon(job, monotonic(), even_running=even_running))

    def _resize(self) -> None:
        """Note how many workers the batches may use; not how many are ready, as no event reports the next ready one."""
        limit = math.inf if self._lane is None else self._lane.limit
        self._carry_out(self._queue.resize(int(min(self._pool.max_workers, limit)), monotonic()))

    def _note_starts(self) -> None:
        """Note which batches the pool has started."""
        for slot in self._queue.at_work:
            for job in slot.jobs:
                if job.state is not DONE:  # else it has ended before the start
                    job.started = slot.handle.started

    def _on_alarm(self) -> None:
        self._resize()
        self._note_starts()
        self._carry_out(self._queue.tick(monotonic()))

    # Batches

    def _carry_out(self, todo: list[Instruction]) -> None:
        for each in todo:  # which grows while the pool refuses batches
            if isinstance(each, Settle):
                settle(each.job.future, each.outcome)
            elif isinstance(each, Run):
                if (error := self._send(each.slot)) is not None:
                    todo += self._queue.end(each.slot, [_copy_of(error) for _ in each.slot.jobs], monotonic())
            elif isinstance(each, Stop):
                each.slot.handle.late = each.late
                self._pool.abandon(each.slot.handle, even_running=True)
            elif isinstance(each, WakeAt):
                self._alarm.set(each.when)

    def _send(self, slot: Slot) -> PoolError | None:
        """Give the pool the requests of the slot as one job. Returns the error if it is refused."""
        bodies = [job.body for job in slot.jobs]
        message = BatchMessage(self._number, [job.meta for job in slot.jobs], list(map(len, bodies)))
        try:
            batch = self._pool.submit_job(Job(message, _joined(bodies), lane=self._lane))
        except PoolError as error:
            return error
        except Exception as error:  # such as a meta that MessagePack cannot encode: no request may wait for ever
            return RemoteError(type(error).__name__, f"the batch cannot be sent: {error}", "")
        for job in slot.jobs:
            job.meta, job.body = None, b""
        slot.handle = batch
        batch.future.add_done_callback(partial(self._ended, slot))
        return None

    def _ended(self, slot: Slot, future: asyncio.Future[JobReply]) -> None:
        error, count = future.exception(), len(slot.jobs)
        self._resize()
        self._note_starts()
        outcomes: Iterable[JobReply | PoolError]
        if isinstance(error, PoolError):
            outcomes = [_copy_of(error) for _ in range(count)]
        else:
            outcomes = _outcomes(future.result(), count)
            self._pool.abandon(slot.handle, even_running=True)  # it has ended, unless its reply was a stream
        self._carry_out(self._queue.end(slot, outcomes, self._alarm.now()))


def _joined(bodies: list[bytes]) -> bytes | Arena:
    if sum(map(len, bodies)) < BIG:
        return b"".join(bodies)
    try:
        arena = Arena()
        for body in bodies:
            arena.write(body)
    except OSError:  # such as no descriptor left: send the bodies through the socket
        return b"".join(bodies)
    return arena


def _outcomes(reply: JobReply, count: int) -> list[JobReply | PoolError]:
    """The replies in the reply of a batch; errors if it is not the reply to a batch of `count` requests."""
    try:
        parts: list[JobReply | PoolError] = []
        body, start = cast("bytes | memoryview", reply.body), 0
        for each in reply.meta.parts:
            part = body[start : start + each.length]
            start += each.length
            if (error := each.error) is not None:
                parts.append(RemoteError(error.type_name, error.message, error.traceback))
            else:
                parts.append(JobReply(each.head, part if each.length >= BIG else bytes(part)))
        if len(parts) == count:
            return parts
    except (AttributeError, TypeError):  # the reply to another kind of message, or a stream
        pass
    return [RemoteError("ValueError", "the worker's reply to a batch has the wrong form", "") for _ in range(count)]


def _copy_of(error: PoolError) -> PoolError:
    """A copy of the error for each request, as tracebacks and headers are added to it."""
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied
