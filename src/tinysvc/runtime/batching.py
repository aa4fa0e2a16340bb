"""Batches: requests of one route that are computed together; each gets its own response.

    submit_frame ──> waiting ─────────────> a batch: one job in the pool ──> a response for each request
                     (oldest first, bound   (at most as many at a time
                     as the pool's queue)   as it may have workers)

*Start of a batch.* A batch starts when the pool has a worker for it, and either `size` requests wait or the oldest has
waited `wait` seconds. So an idle worker waits at most `wait` seconds. While all workers are busy, requests gather here,
where a disconnect can still remove them, instead of in a batch in the pool's queue.

*Deadlines and disconnects.* Each request has its own deadline: DeadlineInQueue before its batch starts, and
DeadlineExceeded afterwards. A request whose client disconnects is dropped; the others of its batch get their responses.
The batch is killed only when all of its requests are abandoned. If its worker dies, all of its requests fail, and none
runs again.

As in pool/scheduler.py, every event (a request arrives or is abandoned, a batch ends, time passes) is one synchronous
method that first decides and then acts.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from ..core.errors import DeadlineExceeded, DeadlineInQueue, JobAbandoned, PoolError, QueueFull, RemoteError
from ..pool.alarm import Alarm
from ..pool.arena import BIG, Arena
from ..pool.job_reply import JobReply
from ..pool.scheduler import TICK
from ..pool.state import Job, Lane
from .cpu_messages import BatchMessage

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from ..service.routes import Batch

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of all bodies in a batch of several requests: the event loop joins them, at some GB/s."""


class Item:
    """One request in a batch; the handler uses it as it uses a Job."""

    __slots__ = ("admitted", "body", "deadline", "future", "job", "meta", "queued", "ran", "settled")

    def __init__(self, meta: Any, body: bytes, now: float, deadline: float, future: asyncio.Future[JobReply]) -> None:
        self.meta = meta
        self.body = body
        self.admitted = now
        self.deadline = deadline
        self.future = future
        self.job: Job | None = None  # its batch, once that is submitted
        self.settled = False
        self.queued = self.ran = 0.0  # seconds, as of a Job; valid once it is settled

    @property
    def has_started(self) -> bool:
        return self.job is not None and self.job.started > 0.0


class Batcher:
    """Collects the requests of one route into batches for a pool. All its requests have the same timeout."""

    def __init__(
        self,
        pool: ProcessPoolExecutor | ExternalPool,
        number: int,
        batch: Batch,
        timeout: float | None = None,
        lane: Lane | None = None,
    ) -> None:
        self._pool = pool
        self._number = number
        self._batch = batch
        self._timeout = timeout
        self._lane = lane
        self._waiting: OrderedDict[Item, None] = OrderedDict()
        self._unsettled: OrderedDict[Item, None] = OrderedDict()  # waiting or in a batch
        self._batches: dict[Job, list[Item]] = {}
        self._mean_run = 0.0  # seconds a batch runs; a moving average
        self._alarm = Alarm(self._on_alarm, self._put_off)

    # Requests

    def submit_frame(self, meta: Any, body: bytes, *_: Any) -> Item:
        """As a pool has it; timeout, lane and key are the same for all of a route. QueueFull if too much waits."""
        now = monotonic()
        waiting = len(self._waiting) + self._pool.waiting
        if not self._has_room() and waiting >= self._pool.queue_size:
            raise QueueFull(f"{waiting} jobs wait already; try again later", self._retry_after())
        deadline = math.inf if self._timeout is None else now + self._timeout
        item = Item(meta, body, now, deadline, asyncio.get_running_loop().create_future())
        self._waiting[item] = self._unsettled[item] = None
        self._send_due(now)
        return item

    def abandon(self, item: Item, *, even_running: bool) -> None:
        """Discard the request. A running batch continues unless `even_running` and all its requests are abandoned."""
        if not item.has_started:
            self._drop(item, JobAbandoned("the job was abandoned before it started"))
        elif even_running:
            self._drop(item, JobAbandoned("the job was abandoned"))

    def _drop(self, item: Item, why: PoolError) -> None:
        """End the request. When all requests of its batch have ended, abandon the batch."""
        self._settle(item, why)
        job = item.job
        if job is not None and all(other.settled for other in self._batches.get(job, ())):
            job.late = isinstance(why, DeadlineExceeded)
            self._pool.abandon(job, even_running=True)

    def _settle(self, item: Item, outcome: JobReply | PoolError) -> None:
        """Set the outcome of a request, once."""
        if item.settled:
            return
        item.settled = True
        now, job = monotonic(), item.job
        started = job.started if job is not None and item.has_started else now
        item.queued, item.ran = started - item.admitted, now - started
        del self._unsettled[item]
        self._waiting.pop(item, None)
        if item.future.done():
            pass  # the handler has cancelled it
        elif isinstance(outcome, PoolError):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)

    # Batches

    def _capacity(self) -> float:
        """How many workers the batches may use; not how many are ready now, as no event reports the next ready one."""
        limit = math.inf if self._lane is None else self._lane.limit
        return min(self._pool.max_workers, limit)

    def _has_room(self) -> bool:
        return len(self._batches) < self._capacity()

    def _due(self) -> float:
        """When the oldest waiting request has waited `wait` seconds."""
        return next(iter(self._waiting)).admitted + self._batch.wait

    def _send_due(self, now: float) -> None:
        """Send the batches that may start, and set the alarm for the next check."""
        self._end_late(self._waiting, now)
        while self._waiting and self._has_room():
            if len(self._waiting) < self._batch.size and self._due() > now:
                self._alarm.set(self._due())
                break
            self._send(self._take())
        if self._unsettled:
            self._alarm.set(max(next(iter(self._unsettled)).deadline, now + TICK))

    def _take(self) -> list[Item]:
        """The oldest waiting requests, as many as a batch may have."""
        items: list[Item] = []
        size = 0
        for item in self._waiting:
            size += len(item.body)
            if len(items) == self._batch.size or (items and size > MAX_BATCH_BYTES):
                break
            items.append(item)
        for item in items:
            del self._waiting[item]
        return items

    def _send(self, items: list[Item]) -> None:
        """Give the pool one job."""
        bodies = [item.body for item in items]
        message = BatchMessage(self._number, [item.meta for item in items], list(map(len, bodies)))
        try:
            job = self._pool.submit_frame(message, _joined(bodies), None, self._lane)
        except PoolError as error:
            self._settle_all(items, error)
            return
        except Exception as error:  # such as a meta that MessagePack cannot encode: no request may wait for ever
            self._settle_all(items, RemoteError(type(error).__name__, f"the batch cannot be sent: {error}", ""))
            return
        for item in items:
            item.job, item.meta, item.body = job, None, b""
        self._batches[job] = items
        job.future.add_done_callback(partial(self._ended, job))

    def _ended(self, job: Job, future: asyncio.Future[JobReply]) -> None:
        items = self._batches.pop(job)
        error = future.exception()
        if job.ran:
            self._mean_run += (job.ran - self._mean_run) / 10 if self._mean_run else job.ran
        if isinstance(error, PoolError):
            self._settle_all(items, error)
        else:
            for item, outcome in zip(items, _outcomes(future.result(), len(items)), strict=True):
                self._settle(item, outcome)
            self._pool.abandon(job, even_running=True)  # it has ended, unless its reply was a stream
        self._send_due(self._alarm.now())

    def _settle_all(self, items: list[Item], error: PoolError) -> None:
        for item in items:
            self._settle(item, _copy_of(error))

    def _retry_after(self) -> int:
        batches = len(self._waiting) // self._batch.size + 1
        return max(1, math.ceil(batches * self._mean_run / self._capacity()))

    # Time

    def _on_alarm(self) -> None:
        now = monotonic()
        self._end_late(self._unsettled, now)
        self._send_due(now)

    def _put_off(self, seconds: float) -> None:
        for item in self._unsettled:
            item.deadline += seconds

    def _end_late(self, items: OrderedDict[Item, None], now: float) -> None:
        """All have the same timeout: the oldest is due first."""
        while items and (oldest := next(iter(items))).deadline <= now:
            text = f"past its deadline of {self._timeout:g} s"
            if oldest.has_started:
                self._drop(oldest, DeadlineExceeded(f"the job ran {text}"))
            else:
                self._drop(oldest, DeadlineInQueue(f"the job waited {text}", self._retry_after()))


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
