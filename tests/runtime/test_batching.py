"""batching.py: with a fake pool whose jobs the test ends, and with a real pool."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_pool import FakePool, until
from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    NoWorkers,
    PoolError,
    QueueFull,
    RemoteError,
    WorkerDied,
)
from tinysvc.pool.arena import BIG, Arena
from tinysvc.pool.job_queue import Grouping
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.state import DONE, QUEUED, Job, Lane
from tinysvc.runtime.batching import MAX_BATCH_BYTES, Batcher
from tinysvc.runtime.cpu_messages import BatchMessage, BatchPart, BatchReply, CallReply, ResponseHead
from tinysvc.service.routes import Batch

NEVER = 3600.0


def batcher(pool: FakePool, size: int = 3, wait: float = NEVER, **options: Any) -> Batcher:
    return Batcher(pool, 7, Batch(size, wait), **options)  # type: ignore[arg-type]


def submit(to: Batcher, *bodies: bytes, timeout: float | None = None) -> list[Job]:
    return [to.submit_job(Job(f"meta of {body.decode()}", body, timeout)) for body in bodies]


def answer(pool: FakePool, job: Job) -> None:
    """As cpu_endpoints.py does, with each body in capitals."""
    message, body = pool.given[job]
    parts = [BatchPart(length, ResponseHead(200, None, [])) for length in message.lengths]
    pool.end(job, JobReply(BatchReply(parts), body.upper()))


async def outcome(item: Job) -> Any:
    try:
        reply = await item.future
    except PoolError as error:
        return type(error)
    return reply.body


# When a batch goes


@pytest.mark.asyncio
async def test_full_batch_starts_at_once() -> None:
    pool = FakePool()
    items = submit(batcher(pool), b"a", b"bc", b"")
    assert pool.given[pool.jobs[0]] == (
        BatchMessage(7, ["meta of a", "meta of bc", "meta of "], [1, 2, 0]),  # type: ignore[list-item]
        b"abc",
    )
    answer(pool, pool.jobs[0])
    assert [await outcome(item) for item in items] == [b"A", b"BC", b""]


@pytest.mark.asyncio
async def test_idle_worker_waits_no_longer_than_wait() -> None:
    pool = FakePool()
    items = submit(batcher(pool, wait=0.001), b"a", b"b")
    assert not pool.jobs
    await until(lambda: pool.jobs, "the batch went, though it is not full")
    answer(pool, pool.jobs[0])
    assert [await outcome(item) for item in items] == [b"A", b"B"]


@pytest.mark.asyncio
async def test_requests_gather_in_a_batch_while_workers_are_busy() -> None:
    pool = FakePool(max_workers=1)
    items = submit(batcher(pool, wait=0), b"a", b"b", b"c", b"d", b"e")
    sent: list[bytes] = []
    while len(sent) < 3:
        await until(lambda: len(pool.jobs) > len(sent), "the next batch went")
        sent.append(pool.given[pool.jobs[-1]][1])
        answer(pool, pool.jobs[-1])
    assert sent == [b"a", b"bcd", b"e"]
    assert [await outcome(item) for item in items] == [b"A", b"B", b"C", b"D", b"E"]


@pytest.mark.parametrize(("lane", "at_once"), [(None, 2), (Lane(1), 1)])
@pytest.mark.asyncio
async def test_no_more_batches_are_in_the_pool_than_may_run(lane: Lane | None, at_once: int) -> None:
    pool = FakePool(max_workers=2)
    submit(batcher(pool, size=1, lane=lane), b"a", b"b", b"c")
    assert len(pool.jobs) == at_once
    assert all(job.lane is lane for job in pool.jobs if lane)


@pytest.mark.asyncio
async def test_batch_of_several_requests_has_a_limit_of_bytes() -> None:
    pool = FakePool(max_workers=2)
    items = submit(batcher(pool), b"a" * 10, b"b" * MAX_BATCH_BYTES, b"c")
    message, body = pool.given[pool.jobs[0]]
    assert (message.lengths, body) == ([10], b"a" * 10)
    assert len(pool.jobs) == 1
    assert not any(item.settled for item in items)
    answer(pool, pool.jobs[0])


@pytest.mark.asyncio
async def test_big_batch_travels_in_an_arena() -> None:
    pool = FakePool()
    submit(batcher(pool, size=2), b"a" * BIG, b"b")
    _, body = pool.given[pool.jobs[0]]
    assert isinstance(body, Arena)
    assert bytes(body.view()) == b"a" * BIG + b"b"


@pytest.mark.asyncio
async def test_batch_without_a_free_descriptor_uses_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> Arena:
        raise OSError(24, "too many open files")

    monkeypatch.setattr("tinysvc.runtime.batching.Arena", none_left)
    pool = FakePool()
    submit(batcher(pool, size=1), b"a" * BIG)
    assert pool.given[pool.jobs[0]][1] == b"a" * BIG


@pytest.mark.asyncio
async def test_waiting_requests_are_limited_by_the_queue_size() -> None:
    pool = FakePool(queue_size=2)
    to = batcher(pool, size=1)
    submit(to, b"runs")
    pool.start(pool.jobs[0])
    submit(to, b"a", b"b")
    with pytest.raises(QueueFull, match="2 jobs wait already; try again later") as raised:
        submit(to, b"c")
    assert raised.value.retry_after == 1


# Each for itself


@pytest.mark.asyncio
async def test_request_abandoned_while_waiting_is_dropped() -> None:
    pool = FakePool()
    to = batcher(pool)
    gone, *others = submit(to, b"a", b"b")
    to.abandon(gone, even_running=False)
    others += submit(to, b"c", b"d")
    assert pool.given[pool.jobs[0]][1] == b"bcd"
    answer(pool, pool.jobs[0])
    assert [await outcome(item) for item in [gone, *others]] == [JobAbandoned, b"B", b"C", b"D"]


@pytest.mark.asyncio
async def test_request_that_ended_before_its_batch_started_has_never_run() -> None:
    pool = FakePool()
    to = batcher(pool, size=2)
    first, second = submit(to, b"a", b"b")
    to.abandon(first, even_running=False)
    pool.start(pool.jobs[0])
    to.abandon(second, even_running=False)  # it notes the start of the batch
    assert second.started
    assert (first.started, first.ran) == (0.0, 0.0)


@pytest.mark.asyncio
async def test_batch_is_abandoned_with_its_last_request() -> None:
    pool = FakePool()
    to = batcher(pool)
    items = submit(to, b"a", b"b", b"c")
    job = pool.jobs[0]
    pool.start(job)
    for item in items[:2]:
        to.abandon(item, even_running=True)
    assert not pool.abandoned
    to.abandon(items[1], even_running=True)  # for the second time
    to.abandon(items[2], even_running=False)  # it runs to its end after a disconnect
    assert not pool.abandoned
    to.abandon(items[2], even_running=True)
    assert pool.abandoned == [(job, True)]
    assert [await outcome(item) for item in items] == [JobAbandoned] * 3


@pytest.mark.asyncio
async def test_queued_batch_is_removed_with_its_last_request() -> None:
    pool = FakePool()
    to = batcher(pool, size=2)
    items = submit(to, b"a", b"b")
    for item in items:
        to.abandon(item, even_running=False)
    assert pool.abandoned == [(pool.jobs[0], True)]


@pytest.mark.asyncio
async def test_cancelled_request_does_not_affect_its_batch() -> None:
    pool = FakePool()
    to = batcher(pool, size=2)
    cancelled, other = submit(to, b"a", b"b")
    pool.start(pool.jobs[0])
    cancelled.future.cancel()
    to.abandon(cancelled, even_running=True)
    answer(pool, pool.jobs[0])
    assert await outcome(other) == b"B"


@pytest.mark.asyncio
async def test_deadline_before_the_start_of_a_batch() -> None:
    pool = FakePool(max_workers=1)
    to = batcher(pool, size=1)
    in_pool, waiting = submit(to, b"a", b"b", timeout=0.02)
    assert await outcome(in_pool) is DeadlineInQueue
    assert await outcome(waiting) is DeadlineInQueue
    assert [job for job, _ in pool.abandoned] == pool.jobs
    assert len(pool.jobs) == 1  # the other was never given to the pool
    assert in_pool.ran == 0.0
    assert in_pool.queued >= 0.02


@pytest.mark.asyncio
async def test_expired_request_is_not_started() -> None:
    pool = FakePool(max_workers=1)
    to = batcher(pool, size=1)
    _, late, good = submit(to, b"a", b"b", b"c", timeout=NEVER)
    late.deadline = 0.0
    answer(pool, pool.jobs[0])
    assert await outcome(late) is DeadlineInQueue
    assert pool.given[pool.jobs[1]][1] == b"c"
    answer(pool, pool.jobs[1])
    assert await outcome(good) == b"C"


@pytest.mark.asyncio
async def test_each_request_of_a_running_batch_has_its_deadline() -> None:
    pool = FakePool()
    to = batcher(pool, size=2)
    late, good = submit(to, b"a", b"b", timeout=NEVER)
    pool.start(pool.jobs[0])
    late.deadline = monotonic()
    to._alarm.set(late.deadline)
    assert await outcome(late) is DeadlineExceeded
    assert not pool.abandoned
    answer(pool, pool.jobs[0])
    assert await outcome(good) == b"B"


@pytest.mark.asyncio
async def test_late_reply_is_discarded() -> None:
    pool = FakePool()
    pool.kills_at_once = False
    to = batcher(pool, size=1)
    (item,) = submit(to, b"a")
    job = pool.jobs[0]
    pool.start(job)
    to.abandon(item, even_running=True)
    assert pool.abandoned == [(job, True)]
    answer(pool, job)
    assert await outcome(item) is JobAbandoned
    (other,) = submit(to, b"b")
    await until(lambda: len(pool.jobs) == 2, "the next batch went")
    answer(pool, pool.jobs[1])
    assert await outcome(other) == b"B"


@pytest.mark.parametrize("error", [NoWorkers("no worker is alive", 5), WorkerDied("worker 1 exited", 3)])
@pytest.mark.asyncio
async def test_error_of_a_batch_goes_to_each_request(error: PoolError) -> None:
    pool = FakePool()
    items = submit(batcher(pool, size=2), b"a", b"b")
    pool.end(pool.jobs[0], error)
    found = await asyncio.gather(*(item.future for item in items), return_exceptions=True)
    assert [(type(each), str(each), vars(each)) for each in found] == [(type(error), str(error), vars(error))] * 2
    assert found[0] is not found[1]
    assert len(pool.jobs) == 1


@pytest.mark.parametrize(
    ("refusal", "for_each"), [(NoWorkers("no worker is alive"), NoWorkers), (TypeError("no MessagePack"), RemoteError)]
)
@pytest.mark.asyncio
async def test_refusal_of_a_batch_goes_to_each_request(refusal: Exception, for_each: type) -> None:
    pool = FakePool()
    to = batcher(pool, size=2)
    pool.refusal = refusal
    items = submit(to, b"a", b"b")
    assert [await outcome(item) for item in items] == [for_each, for_each]
    pool.refusal = None
    items = submit(to, b"c", b"d")
    answer(pool, pool.jobs[0])
    assert [await outcome(item) for item in items] == [b"C", b"D"]


@pytest.mark.parametrize(
    "meta", [None, CallReply([]), BatchReply([]), *(BatchReply([BatchPart(1, None)] * n) for n in (1, 3))]
)
@pytest.mark.asyncio
async def test_reply_to_another_message_fails_all_requests(meta: Any) -> None:
    pool = FakePool()
    items = submit(batcher(pool, size=2), b"a", b"b")
    pool.end(pool.jobs[0], JobReply(meta, b"ab"))
    assert [await outcome(item) for item in items] == [RemoteError, RemoteError]


@pytest.mark.asyncio
async def test_replies_precede_deadlines_after_a_blocked_loop() -> None:
    pool = FakePool()
    to = batcher(pool, size=1)
    (item,) = submit(to, b"a")
    item.deadline = monotonic()
    pool.start(pool.jobs[0])
    to._queue.postpone(NEVER)
    to._on_alarm()
    assert not item.settled
    answer(pool, pool.jobs[0])
    assert await outcome(item) == b"A"


def test_alarm_that_is_almost_due_works_under_uvloop() -> None:
    """`call_at` of uvloop then returns a handle without a time."""

    async def main() -> None:
        pool = FakePool()
        to = batcher(pool, wait=1e-9)
        submit(to, b"a", b"b")
        await until(lambda: pool.jobs, "the batch went")
        answer(pool, pool.jobs[0])

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "start", "answer", "die", "leave", "be late"]),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(EVENTS, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0, NEVER]), st.booleans())
def test_any_order_of_events(
    events: list[tuple[str, int, bool]], workers: int, size: int, wait: float, kills_at_once: bool
) -> None:
    """Each request gets its own reply, once; no batch is too big, and the pool never has too many batches."""

    async def main() -> None:
        pool = FakePool(workers)
        pool.kills_at_once = kills_at_once
        to = batcher(pool, size, wait)
        items: list[Job] = []

        def living() -> list[Job]:
            return [job for job in pool.jobs if job.state is not DONE]

        def happen(event: str, number: int, flag: bool) -> None:
            unsettled = list(to._queue.jobs())
            if event == "come":
                items.extend(submit(to, b"item %d" % len(items), timeout=NEVER))
            elif event == "leave" and unsettled:
                to.abandon(unsettled[number % len(unsettled)], even_running=flag)
            elif event == "be late" and unsettled:
                unsettled[0].deadline = 0.0
                to._on_alarm()
            elif living():
                job = living()[number % len(living())]
                if event == "start" and job.state is QUEUED:
                    pool.start(job)
                elif event == "answer":
                    answer(pool, job)
                elif event == "die":
                    pool.end(job, WorkerDied("worker 1 exited", 3))

        for event in events:
            happen(*event)
            await asyncio.sleep(0)
            assert len(living()) <= workers
            assert all(len(pool.given[job][0].requests) <= size for job in pool.jobs)
        to._queue.grouping = Grouping(size)  # whoever still waits has waited long enough
        to._on_alarm()
        while living():
            answer(pool, living()[0])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        got = [await outcome(item) for item in items]
        failed = (JobAbandoned, DeadlineInQueue, DeadlineExceeded, WorkerDied)
        assert all(each in failed or each == b"ITEM %d" % number for number, each in enumerate(got))
        sent = [meta for job in pool.jobs for meta in pool.given[job][0].requests]
        assert len(sent) == len(set(sent))  # nobody was in two batches

    asyncio.run(main())
