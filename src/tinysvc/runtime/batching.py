"""Batches: requests of one route that are computed together, each of them answered for itself.

    submit_frame ──> waiting ─────────────> a batch: one job in the pool ──> to each its own answer
                     (eldest first, bound   (at most as many at a time as
                     as the pool's queue)   it may have workers)

*When a batch goes.* When fewer batches are in the pool than it has workers for them, and either `size` requests wait or
the eldest has waited `wait` seconds. So an idle worker never waits longer than that for company; and while all of them
are busy, requests gather here, where they may still leave, and not in a batch that waits in the pool's queue.

*Each for itself.* A request has its own clock, from the moment it came: DeadlineInQueue as long as its batch has not
been started, DeadlineExceeded from then on. Who leaves while waiting is dropped; who leaves while it runs gets no
answer, and the others theirs. The batch is killed only when nobody waits for any of it. If its worker dies, all of it
fails, and none of it is run again.

As in the pool's books, every event (a request comes or leaves, a batch ends, time passes) is one synchronous method
that decides first and acts then.
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

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from ..service.routes import Batch

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of bodies in one batch, if it is of more than one: they are put together on the event loop, at some GB/s."""


class Item:
    """One request in a batch: to who waits for it, what a Job is."""

    __slots__ = ("admitted", "body", "deadline", "future", "job", "meta", "queued", "ran", "settled")

    def __init__(self, meta: Any, body: bytes, now: float, deadline: float, future: asyncio.Future[JobReply]) -> None:
        self.meta = meta
        self.body = body
        self.admitted = now
        self.deadline = deadline
        self.future = future
        self.job: Job | None = None  # the batch it is in
        self.settled = False
        self.queued = self.ran = 0.0  # seconds, as a Job has them; true when it is settled

    @property
    def has_started(self) -> bool:
        return self.job is not None and self.job.started > 0.0


class Batcher:
    """Stands before a pool and makes batches of what one route gives it. All its requests have the same timeout."""

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
        self._unsettled: OrderedDict[Item, None] = OrderedDict()  # those that wait and those in a batch
        self._batches: dict[Job, list[Item]] = {}
        self._mean_run = 0.0  # seconds a batch runs; a moving average
        self._alarm = Alarm(self._on_alarm, self._put_off)

    # Requests come and go

    def submit_frame(self, meta: Any, body: bytes, *_: Any) -> Item:
        """As a pool has it; timeout, lane and key are the same for all of a route. QueueFull if too much waits."""
        now = monotonic()
        waiting = len(self._waiting) + self._pool.waiting
        if not self._has_room() and waiting >= self._pool.queue_size:
            raise QueueFull(f"{waiting} jobs wait already; try again later", self._retry_after())
        deadline = math.inf if self._timeout is None else now + self._timeout
        item = Item(meta, body, now, deadline, asyncio.get_running_loop().create_future())
        self._waiting[item] = self._unsettled[item] = None
        self._go_on(now)
        return item

    def abandon(self, item: Item, *, even_running: bool) -> None:
        """Nobody waits for it any more. One that runs runs on, unless told so and nobody waits for its batch either."""
        if not item.has_started:
            self._drop(item, JobAbandoned("nobody waits for the job any more; it was not started"))
        elif even_running:
            self._drop(item, JobAbandoned("nobody waits for the job any more"))

    def _drop(self, item: Item, why: PoolError) -> None:
        """It ends before its batch does."""
        self._settle(item, why)
        job = item.job
        if job is not None and all(other.settled for other in self._batches.get(job, ())):
            job.late = isinstance(why, DeadlineExceeded)
            self._pool.abandon(job, even_running=True)

    def _settle(self, item: Item, outcome: JobReply | PoolError) -> None:
        """Tell who waits for it, once."""
        if item.settled:
            return
        item.settled = True
        now, job = monotonic(), item.job
        started = job.started if job is not None and item.has_started else now
        item.queued, item.ran = started - item.admitted, now - started
        del self._unsettled[item]
        self._waiting.pop(item, None)
        if item.future.done():
            pass  # cancelled by who waited
        elif isinstance(outcome, PoolError):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome)

    # Batches go

    def _capacity(self) -> float:
        """How many workers our batches may have; not how many are ready now, since nobody tells us of the next."""
        limit = math.inf if self._lane is None else self._lane.limit
        return min(self._pool.max_workers, limit)

    def _has_room(self) -> bool:
        return len(self._batches) < self._capacity()

    def _due(self) -> float:
        """When the eldest that waits has waited long enough."""
        return next(iter(self._waiting)).admitted + self._batch.wait

    def _go_on(self, now: float) -> None:
        """Send the batches that may go, and say when to look again."""
        self._end_late(self._waiting, now)
        while self._waiting and self._has_room():
            if len(self._waiting) < self._batch.size and self._due() > now:
                self._alarm.set(self._due())
                break
            self._send(self._take())
        if self._unsettled:
            self._alarm.set(max(next(iter(self._unsettled)).deadline, now + TICK))

    def _take(self) -> list[Item]:
        """The eldest that wait: as many as a batch holds."""
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
        """Give the pool one job; endpoints.py says what is in it."""
        bodies = [item.body for item in items]
        meta = (self._number, [item.meta for item in items], list(map(len, bodies)))
        try:
            job = self._pool.submit_frame(meta, _joined(bodies), None, self._lane)
        except PoolError as error:
            self._settle_all(items, error)
            return
        except Exception as error:  # a meta that MessagePack cannot carry, say: nobody may wait for ever
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
            self._pool.abandon(job, even_running=True)  # it is over, unless its answer was a stream
        self._go_on(self._alarm.now())

    def _settle_all(self, items: list[Item], error: PoolError) -> None:
        for item in items:
            self._settle(item, _twin(error))

    def _retry_after(self) -> int:
        batches = len(self._waiting) // self._batch.size + 1
        return max(1, math.ceil(batches * self._mean_run / self._capacity()))

    # Time passes

    def _on_alarm(self) -> None:
        now = monotonic()
        self._end_late(self._unsettled, now)
        self._go_on(now)

    def _put_off(self, seconds: float) -> None:
        for item in self._unsettled:
            item.deadline += seconds

    def _end_late(self, items: OrderedDict[Item, None], now: float) -> None:
        """All have the same timeout, so that the eldest is due first."""
        while items and (eldest := next(iter(items))).deadline <= now:
            text = f"past its deadline of {self._timeout:g} s"
            if eldest.has_started:
                self._drop(eldest, DeadlineExceeded(f"the job ran {text}"))
            else:
                self._drop(eldest, DeadlineInQueue(f"the job waited {text}", self._retry_after()))


def _joined(bodies: list[bytes]) -> bytes | Arena:
    if sum(map(len, bodies)) < BIG:
        return b"".join(bodies)
    try:
        arena = Arena()
        for body in bodies:
            arena.write(body)
    except OSError:  # out of descriptors, say: then it goes through the socket
        return b"".join(bodies)
    return arena


def _outcomes(reply: JobReply, count: int) -> list[JobReply | PoolError]:
    """The answers in the reply of a batch; errors where it is not what endpoints.py makes."""
    try:
        parts: list[JobReply | PoolError] = []
        body, start = cast("bytes | memoryview", reply.body), 0
        for length, meta, error in reply.meta:
            part = body[start : start + length]
            parts.append(RemoteError(*error) if error else JobReply(meta, part if length >= BIG else bytes(part)))
            start += length
        if len(parts) == count:
            return parts
    except (TypeError, ValueError):
        pass
    return [RemoteError("ValueError", "the worker's answer to a batch cannot be read", "") for _ in range(count)]


def _twin(error: PoolError) -> PoolError:
    """Each who waits raises an error of its own: tracebacks and headers are added to it."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    return twin
