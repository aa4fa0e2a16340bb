"""The contract of tinysvc/jobs/store.py as tests, which every store runs: a test file makes a subclass of
`StoreContract` with its own fixture `harness`.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from tinysvc.core.job_errors import KeyReused, TooManyWaiting
from tinysvc.jobs.records import Change, Claimed, Failure, NewJob, Progress, Record, ResultHead, State
from tinysvc.jobs.states import Refusal
from tinysvc.jobs.store import LocalStore, Store

ROUTE = "/trainings"
ROOM = {ROUTE: 1000}
LARGE = bytes(range(256)) * 1024
"""256 KiB: more than a row should have."""


class Harness(Protocol):
    """One store, as several server processes see it."""

    async def server(self, owner: str) -> Store:
        """The store, opened by this server process."""

    async def kill(self, owner: str) -> None:
        """This server process died with its workers, and the others have noticed: its attempts have lapsed."""

    async def restart(self) -> None:
        """All server processes end in good order. `server` opens the store again."""


class OwnerView:
    """A `LocalStore` as another server process sees it, through the keeper."""

    def __init__(self, store: LocalStore, owner: str) -> None:
        self._store = store
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def claim(self, capacity: Mapping[str, int], total: int) -> list[Claimed]:
        return await self._store.claim(capacity, total, owner=self._owner)


def job(route: str = ROUTE, **options: Any) -> NewJob:
    return NewJob(**{"route": route, "request": b"\x80", "body": b"body", "digest": b"digest", **options})


def head(size: int = 2) -> ResultHead:
    return ResultHead(status=200, content_type="application/json", headers=[("x-seed", "7")], size=size)


async def accept(store: Store, new: NewJob | None = None, **options: Any) -> str:
    return (await store.submit(new or job(**options))).record.id


async def start(store: Store) -> Claimed:
    """Claim one, as soon as it is due."""
    async with asyncio.timeout(30):
        while not (claimed := await store.claim(ROOM, 1)):
            await asyncio.sleep(0.01)
    return claimed[0]


async def record_of(store: Store, job_id: str) -> Record:
    record = await store.get(job_id)
    assert record is not None
    return record


async def content(result: Any) -> bytes:
    if isinstance(result, bytes):
        return result
    with result:
        return bytes(result.read())


@pytest.mark.asyncio
class StoreContract:
    """Subclasses have a fixture `harness`."""

    async def test_accepted_job_waits(self, harness: Harness) -> None:
        store = await harness.server("one")
        submitted = await store.submit(job(priority=3, request_id="r-1", path="/trainings"))
        record = submitted.record
        assert submitted.is_new
        assert (record.state, record.attempt, record.used, record.owner) == (State.QUEUED, 0, 0, "")
        assert (record.route, record.priority, record.request_id) == (ROUTE, 3, "r-1")
        assert len(record.id) == 32
        assert await store.get(record.id) == record
        assert await store.get("f" * 32) is None
        assert await store.result(record.id) is None

    async def test_key_gives_the_same_job_again(self, harness: Harness) -> None:
        store = await harness.server("one")
        first = await store.submit(job(key="k"))
        again, elsewhere = await store.submit(job(key="k")), await store.submit(job("/others", key="k"))
        assert (again.is_new, again.record) == (False, first.record)
        assert elsewhere.is_new
        with pytest.raises(KeyReused, match="'k'"):
            await store.submit(job(key="k", digest=b"other"))
        assert (await store.page(None, None, 10, "")).counts == {"queued": 2}

    async def test_concurrent_requests_with_one_key_make_one_job(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        submitted = await asyncio.gather(*(each.submit(job(key="k")) for each in [store, other] * 10))
        assert len({each.record.id for each in submitted}) == 1
        assert sum(each.is_new for each in submitted) == 1

    async def test_limit_of_waiting_jobs(self, harness: Harness) -> None:
        store = await harness.server("one")
        for _ in range(2):
            await accept(store, max_waiting=2)
        with pytest.raises(TooManyWaiting, match="2 durable jobs of /trainings wait"):
            await store.submit(job(max_waiting=2))
        assert (await store.submit(job("/others", max_waiting=2))).is_new
        await store.claim(ROOM, 1)
        assert (await store.submit(job(max_waiting=2))).is_new

    async def test_claim_takes_priority_then_due_then_order(self, harness: Harness) -> None:
        store = await harness.server("one")
        now = time.time()
        plain = await accept(store, due=now - 1)
        early = await accept(store, due=now - 9)
        urgent = await accept(store, priority=1)
        later = [await accept(store, due=now - 1) for _ in range(5)]
        minor = await accept(store, priority=-1, due=now - 99)
        assert [each.record.id for each in await store.claim(ROOM, 100)] == [urgent, early, plain, *later, minor]

    async def test_claim_keeps_to_the_capacity(self, harness: Harness) -> None:
        store = await harness.server("one")
        for route in ("/a", "/b", "/unknown"):
            for _ in range(5):
                await accept(store, job(route))
        claimed = await store.claim({"/a": 2, "/b": 4, "/empty": 4, "/c": 0}, 5)
        assert sorted(each.record.route for each in claimed) in (
            ["/a", "/a", "/b", "/b", "/b"],
            ["/a", "/b", "/b", "/b", "/b"],
        )
        assert await store.claim({"/a": 2}, 0) == []
        assert await store.claim({}, 5) == []
        assert (await store.page("/unknown", None, 1, "")).counts == {"queued": 5}

    async def test_claim_has_all_that_an_attempt_needs(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, request=b"\x81\xa1a\x01", body=b"\x00\xff")
        claimed = await start(store)
        assert (claimed.request, claimed.body, claimed.saved) == (b"\x81\xa1a\x01", b"\x00\xff", None)
        record = claimed.record
        assert (record.id, record.state, record.attempt, record.owner) == (job_id, State.RUNNING, 1, "one")
        assert [(each.number, each.ended, each.cause) for each in record.attempts] == [(1, None, "")]
        assert await store.get(job_id) == record
        assert await store.claim(ROOM, 9) == []

    async def test_no_job_is_claimed_twice(self, harness: Harness) -> None:
        servers = [await harness.server(name) for name in ("one", "two")]
        ids = [await accept(servers[0]) for _ in range(40)]
        answers = await asyncio.gather(*(server.claim(ROOM, 3) for server in servers * 10))
        while rest := await servers[0].claim(ROOM, 100):
            answers.append(rest)
        assert sorted(each.record.id for answer in answers for each in answer) == sorted(ids)
        assert {each.record.owner for answer in answers for each in answer} <= {"one", "two"}

    async def test_finished_job_has_its_result(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, keep=60.0)
        await start(store)
        assert await store.finish(job_id, 1, head(), b"42")
        record = await record_of(store, job_id)
        assert (record.state, record.owner, record.used, record.result) == (State.SUCCEEDED, "", 1, head())
        assert record.ended is not None
        assert record.expires == pytest.approx(record.ended + 60)
        assert [each.cause for each in record.attempts] == ["succeeded"]
        assert await content(await store.result(job_id)) == b"42"

    async def test_large_contents_survive(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, body=LARGE, key="k", max_attempts=9)
        await store.submit(job(body=LARGE, key="k"))  # the same again
        assert (await start(store)).body == LARGE
        assert await store.save(job_id, 1, LARGE[1:])
        assert await store.save(job_id, 1, LARGE[2:])
        assert await store.release(job_id, 1, "shutdown")
        assert not await store.save(job_id, 1, LARGE[3:])
        claimed = await start(store)
        assert (claimed.body, claimed.saved) == (LARGE, LARGE[2:])
        assert not await store.finish(job_id, 1, head(), LARGE)
        assert await store.finish(job_id, 2, head(len(LARGE)), LARGE[::-1])
        assert await content(await store.result(job_id)) == LARGE[::-1]

    async def test_late_write_of_an_older_attempt_changes_nothing(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        job_id = await accept(store)
        await start(store)
        await harness.kill("one")
        second = await start(other)
        assert (second.record.attempt, second.record.owner) == (2, "two")
        late = await harness.server("one")
        assert not await late.progress(job_id, 1, Progress(fraction=0.9))
        assert not await late.save(job_id, 1, b"late")
        assert not await late.finish(job_id, 1, head(), b"late")
        assert not await late.fail(job_id, 1, Failure("error", "late"))
        assert not await late.release(job_id, 1, "shutdown")
        assert not await late.stopped(job_id, 1)
        assert await other.get(job_id) == second.record
        assert await other.finish(job_id, 2, head(), b"right")
        assert await content(await other.result(job_id)) == b"right"

    async def test_failed_attempt_is_tried_again_until_none_is_left(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, max_attempts=2)
        await start(store)
        soon = time.time() + 0.2
        assert await store.fail(job_id, 1, Failure("error", "ValueError: no", problem={"status": 500}, retry_at=soon))
        waiting = await record_of(store, job_id)
        assert (waiting.state, waiting.used) == (State.SCHEDULED, 1)
        assert waiting.due == pytest.approx(soon, abs=0.01)
        second = await start(store)
        assert (second.record.attempt, second.record.used) == (2, 1)
        assert await store.fail(
            job_id,
            2,
            Failure("worker-died", "signal 9", problem={"status": 500, "deep": [1]}, retry_at=time.time() + 1),
        )
        record = await record_of(store, job_id)
        assert (record.state, record.used, record.expires) == (State.FAILED, 2, None)
        assert record.problem == {"status": 500, "deep": [1]}
        assert [(each.cause, each.detail) for each in record.attempts] == [
            ("error", "ValueError: no"),
            ("worker-died", "signal 9"),
        ]
        assert await store.claim(ROOM, 1) == []

    async def test_scheduled_job_waits_for_its_time(self, harness: Harness) -> None:
        store = await harness.server("one")
        due = time.time() + 3600
        job_id = await accept(store, due=due)
        assert (await record_of(store, job_id)).state == State.SCHEDULED
        assert await store.claim(ROOM, 1) == []
        assert await store.next_due() == pytest.approx(due, abs=1)
        soon = await accept(store, due=time.time() + 0.2)
        assert (await start(store)).record.id == soon
        await store.cancel(job_id)
        assert await store.next_due() is None

    async def test_release_uses_no_attempt(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, max_attempts=1)
        for number in (1, 2, 3):
            assert (await start(store)).record.attempt == number
            assert await store.release(job_id, number, "shutdown")
        record = await record_of(store, job_id)
        assert (record.state, record.used, record.attempts[-1].cause) == (State.QUEUED, 0, "shutdown")

    async def test_failure_that_does_not_count(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store)
        await start(store)
        assert await store.fail(
            job_id, 1, Failure("arguments-no-longer-fit", "epochs", problem={"status": 422}, counts=False)
        )
        record = await record_of(store, job_id)
        assert (record.state, record.used, record.attempts[-1].counts) == (State.FAILED, 0, False)

    async def test_saved_value_is_for_the_next_attempt(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store)
        await start(store)
        for value in (b"1", b"22", b""):
            assert await store.save(job_id, 1, value)
        assert await store.progress(job_id, 1, Progress(fraction=0.5))
        await harness.kill("one")
        claimed = await start(await harness.server("two"))
        assert claimed.saved == b""
        assert (claimed.record.has_saved, claimed.record.used) == (True, 1)

    async def test_progress_is_seen_at_once(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store)
        await start(store)
        for step in range(5):
            value = Progress(fraction=step / 5, values={"loss": 0.25, "näme": ["ü", None, True]})
            before = await record_of(store, job_id)
            assert await store.progress(job_id, 1, value)
            record = await record_of(store, job_id)
            assert record.progress == value
            assert record.version > before.version
            assert (await store.page(ROUTE, None, 1, "")).records == [record]
        assert await store.finish(job_id, 1, head(), b"42")
        assert not await store.progress(job_id, 1, Progress(fraction=0.1))
        assert (await record_of(store, job_id)).progress == value

    async def test_cancel_before_the_start(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store)
        outcome = await store.cancel(job_id)
        assert outcome.record is not None
        assert (outcome.kind, outcome.owner, outcome.record.state) == ("cancelled", "", State.CANCELLED)
        assert outcome.record.expires is not None
        assert (await store.cancel(job_id)).kind == "was-cancelled"
        assert (await store.cancel("f" * 32)).kind == "unknown"
        assert await store.claim(ROOM, 1) == []

    async def test_cancelled_attempt_has_its_owner_until_the_worker_is_dead(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        job_id = await accept(store)
        await start(store)
        outcome = await other.cancel(job_id)
        assert (outcome.kind, outcome.owner, outcome.attempt) == ("cancelled", "one", 1)
        assert (await other.cancel(job_id)).owner == "one"
        assert not await store.finish(job_id, 1, head(), b"late")
        assert not await store.save(job_id, 1, b"late")
        assert await store.stopped(job_id, 1)
        assert not await store.stopped(job_id, 1)
        record = await record_of(other, job_id)
        assert (record.state, record.owner, record.attempts[-1].cause) == (State.CANCELLED, "", "cancelled")

    async def test_cancelled_attempt_has_no_owner_after_the_death_of_the_server(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        job_id = await accept(store)
        await start(store)
        await other.cancel(job_id)
        await harness.kill("one")
        record = await record_of(other, job_id)
        assert (record.state, record.owner) == (State.CANCELLED, "")
        assert await other.claim(ROOM, 1) == []

    async def test_cancel_between_two_attempts(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store)
        await start(store)
        await store.fail(job_id, 1, Failure("error", retry_at=time.time() + 3600))
        assert (await store.cancel(job_id)).kind == "cancelled"
        assert await store.next_due() is None

    async def test_first_commit_wins_a_race_of_cancel_and_finish(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        for _ in range(10):
            job_id = await accept(store)
            await start(store)
            outcome, finished = await asyncio.gather(other.cancel(job_id), store.finish(job_id, 1, head(), b"42"))
            assert (outcome.kind, finished) in (("cancelled", False), ("ended", True))
            state = (await record_of(store, job_id)).state
            assert state == (State.SUCCEEDED if finished else State.CANCELLED)
            assert await store.result(job_id) == (b"42" if finished else None)

    async def test_retry_is_for_failed_ones(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, max_attempts=1)
        assert await store.retry(job_id) == Refusal("not-failed")
        assert await store.retry("f" * 32) is None
        await start(store)
        await store.fail(job_id, 1, Failure("error", problem={"status": 500}))
        record = await store.retry(job_id)
        assert isinstance(record, Record)
        assert (record.state, record.used, record.problem) == (State.QUEUED, 0, None)
        assert (await start(store)).record.attempt == 2

    async def test_cancel_dismisses_a_failed_one(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store, max_attempts=1, keep=60.0)
        await start(store)
        await store.save(job_id, 1, b"saved")
        await store.fail(job_id, 1, Failure("error", problem={"status": 500}))
        outcome = await store.cancel(job_id)
        assert outcome.record is not None
        assert (outcome.kind, outcome.owner, outcome.record.problem) == ("cancelled", "", {"status": 500})
        assert not outcome.record.has_saved
        assert (await store.cancel(job_id)).kind == "was-cancelled"
        assert await store.retry(job_id) == Refusal("not-failed")
        assert (await store.page(None, None, 10, "")).counts == {"cancelled": 1}
        assert await store.sweep(time.time() + 90) == 1
        assert (await record_of(store, job_id)).expired

    async def test_poison_job_fails_when_its_servers_die(self, harness: Harness) -> None:
        store = await harness.server("watcher")
        job_id = await accept(store, max_attempts=3)
        for number, name in enumerate(("one", "two", "three"), 1):
            assert (await start(await harness.server(name))).record.attempt == number
            await harness.kill(name)
        record = await record_of(store, job_id)
        assert (record.state, record.used) == (State.FAILED, 3)
        assert {each.cause for each in record.attempts} <= {"server-died", "lease-lost"}
        assert record.problem is not None

    async def test_death_of_a_server_leaves_the_attempts_of_others(self, harness: Harness) -> None:
        one, two = await harness.server("one"), await harness.server("two")
        first, second = await accept(one), await accept(one)
        assert [(await start(each)).record.id for each in (one, two)] == [first, second]
        await harness.kill("one")
        assert (await record_of(two, first)).state == State.QUEUED
        assert (await record_of(two, second)).owner == "two"
        assert await two.finish(second, 1, head(), b"")

    async def test_retention(self, harness: Harness) -> None:
        store = await harness.server("one")
        done, failed, cancelled, waiting = [await accept(store, keep=60.0, key=f"k{n}") for n in range(4)]
        for _ in range(3):
            await start(store)
        await store.finish(done, 1, head(len(LARGE)), LARGE)
        await store.fail(failed, 1, Failure("error", problem={"status": 500}))
        await store.cancel(cancelled)
        reader = await store.result(done)
        assert await store.sweep(time.time() + 30) == 0
        assert await store.sweep(time.time() + 90) == 1  # the worker of the cancelled one is not known to be dead
        await store.stopped(cancelled, 1)
        assert await store.sweep(time.time() + 90) == 1
        assert await store.sweep(time.time() + 90) == 0
        assert await content(reader) == LARGE
        for job_id, state in ((done, State.SUCCEEDED), (cancelled, State.CANCELLED)):
            record = await record_of(store, job_id)
            assert (record.expired, record.state, record.route, record.result) == (True, state, ROUTE, None)
            assert await store.result(job_id) is None
        assert (await store.page(None, None, 10, "")).counts == {"failed": 1, "queued": 1}
        assert (await store.submit(job(key="k0", digest=b"new"))).is_new
        assert not (await record_of(store, waiting)).expired
        assert (await store.cancel(done)).kind == "unknown"
        await store.sweep(time.time() + 40 * 86400)
        assert await store.get(done) is None

    async def test_tick_of_a_schedule_is_accepted_once(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        assert await store.last_tick("nightly") is None
        assert not await store.schedule("nightly", 1000.0, None)
        assert not await store.schedule("nightly", 500.0, None)
        assert await store.last_tick("nightly") == 1000.0
        assert not await store.schedule("nightly", 1000.0, job())
        answers = await asyncio.gather(*(each.schedule("nightly", 2000.0, job()) for each in [store, other] * 5))
        assert sum(answers) == 1
        assert not await store.schedule("nightly", 1500.0, job())  # the clock was set back
        assert await other.last_tick("nightly") == 2000.0
        assert await store.schedule("hourly", 1.0, job("/others"))
        assert (await store.page(None, None, 10, "")).counts == {"queued": 2}

    async def test_page_lists_the_newest_first(self, harness: Harness) -> None:
        store = await harness.server("one")
        ids = [await accept(store, job("/a" if number % 2 else "/b")) for number in range(9)]
        await store.cancel(ids[3])
        first = await store.page(None, None, 3, "")
        assert first.counts == {"queued": 8, "cancelled": 1}
        newer = await accept(store)  # not a part of older pages
        await store.sweep(time.time() + 8 * 86400)  # removes ids[3]
        second = await store.page(None, None, 3, first.next)
        third = await store.page(None, None, 3, second.next)
        seen = [record.id for page in (first, second, third) for record in page.records]
        assert seen == [ids[number] for number in (8, 7, 6, 5, 4, 2, 1, 0)]
        assert third.next == ""
        assert (await store.page(None, None, 100, "")).records[0].id == newer

    async def test_page_filters_by_route_state_and_path(self, harness: Harness) -> None:
        store = await harness.server("one")
        users = [await accept(store, job("/users/{user}/jobs", path=f"/users/{n % 2}/jobs")) for n in range(6)]
        plain = await accept(store, job("/plain", path="/plain"))
        await store.cancel(users[2])

        async def listed(*filters: Any) -> tuple[list[str], dict[str, int]]:
            route, state, path = filters
            page = await store.page(route, state, 2, "", path)
            rows = [record.id for record in page.records]
            while page.next:
                page = await store.page(route, state, 2, page.next, path)
                rows += [record.id for record in page.records]
            return rows, page.counts

        assert await listed("/plain", None, None) == ([plain], {"queued": 1})
        assert await listed("/plain", None, "/plain") == ([plain], {"queued": 1})
        assert await listed(None, None, "/plain") == ([plain], {"queued": 1})
        assert await listed(None, State.CANCELLED, None) == ([users[2]], {"queued": 6, "cancelled": 1})
        assert await listed("/users/{user}/jobs", State.QUEUED, None) == (
            [users[n] for n in (5, 4, 3, 1, 0)],
            {"queued": 5, "cancelled": 1},
        )
        mine = ([users[4], users[2], users[0]], {"queued": 2, "cancelled": 1})
        assert await listed("/users/{user}/jobs", None, "/users/0/jobs") == mine
        assert await listed("/users/{user}/jobs", State.QUEUED, "/users/0/jobs") == ([users[4], users[0]], mine[1])
        assert await listed("/plain", None, "/users/0/jobs") == ([], {})
        assert await listed("/nowhere", None, None) == ([], {})

    async def test_watcher_gets_each_change(self, harness: Harness) -> None:
        store, other = await harness.server("one"), await harness.server("two")
        seen: list[Change] = []
        end = other.watch(seen.append)
        job_id = await accept(store)
        await start(store)
        await store.progress(job_id, 1, Progress(fraction=0.5))
        await store.finish(job_id, 1, head(), b"42")
        record = await record_of(store, job_id)
        async with asyncio.timeout(30):
            while not seen or seen[-1].version < record.version:
                await asyncio.sleep(0.01)
        assert {each.id for each in seen} == {job_id}
        assert {each.route for each in seen} == {ROUTE}
        versions = [each.version for each in seen]
        assert versions == sorted(versions)
        assert seen[-1].state == State.SUCCEEDED
        end()
        end()
        count = len(seen)
        await accept(store)
        await asyncio.sleep(0.05)
        assert len(seen) == count

    async def test_everything_survives_a_restart(self, harness: Harness) -> None:
        store = await harness.server("one")
        ids = [await accept(store, key=f"k{number}", body=bytes([number]) * 70000) for number in range(5)]
        for _ in range(3):
            await start(store)
        await store.finish(ids[0], 1, head(len(LARGE)), LARGE)
        await store.fail(ids[1], 1, Failure("error", "no", problem={"status": 500}, retry_at=time.time() + 3600))
        await store.save(ids[2], 1, b"saved")
        await store.progress(ids[2], 1, Progress(fraction=0.5))
        await store.release(ids[2], 1, "shutdown")
        await store.schedule("nightly", 5.0, None)
        before = [await record_of(store, each) for each in ids]
        await harness.restart()
        store = await harness.server("one")
        assert [await store.get(each) for each in ids] == before
        assert await content(await store.result(ids[0])) == LARGE
        assert await store.last_tick("nightly") == 5.0
        assert (await store.page(ROUTE, None, 2, "")).counts == {"succeeded": 1, "scheduled": 1, "queued": 3}
        assert not (await store.submit(job(key="k3"))).is_new
        claimed = await store.claim(ROOM, 10)
        assert [(each.record.id, each.saved) for each in claimed] == [
            (ids[2], b"saved"),
            (ids[3], None),
            (ids[4], None),
        ]
        assert [each.body for each in claimed] == [bytes([number]) * 70000 for number in (2, 3, 4)]

    async def test_change_goes_on_when_its_caller_is_cancelled(self, harness: Harness) -> None:
        store = await harness.server("one")
        for body in (b"small", LARGE):
            key = f"k{len(body)}"
            task = asyncio.create_task(store.submit(job(key=key, body=body)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await store.submit(job(key=key, body=body))  # whatever became of it: there is one
            assert (await start(store)).body == body
            assert await store.claim(ROOM, 9) == []

    async def test_store_without_faults_has_no_problem(self, harness: Harness) -> None:
        store = await harness.server("one")
        reasons: list[str] = []
        ends = store.broken(reasons.append), store.lost(lambda attempts: None)
        await accept(store)
        assert store.problem == ""
        assert isinstance(list(store.inherited), list)
        for end in ends:
            end()
        assert reasons == []

    async def test_big_result_is_read_in_pieces_or_whole(self, harness: Harness) -> None:
        store = await harness.server("one")
        job_id = await accept(store)
        await start(store)
        assert await store.finish(job_id, 1, head(len(LARGE)), LARGE)
        result = await store.result(job_id)
        assert isinstance(result, bytes) or isinstance(result.read(0), bytes)  # type: ignore[union-attr]
        with io.BytesIO(result) if isinstance(result, bytes) else result as file:  # type: ignore[union-attr]
            assert file.read(10) + file.read() == LARGE
