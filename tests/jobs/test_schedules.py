"""schedules.py: each tick gives the store one job, also with several servers, clocks that are set, and missed ticks."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

import pytest
from msgspec.structs import replace

from memory_store import MemoryStore
from system import until
from tinysvc import Service, job_route
from tinysvc.core.cron import Cron
from tinysvc.core.job_errors import StoreError
from tinysvc.core.settings import Settings
from tinysvc.jobs.records import NewJob, State
from tinysvc.jobs.schedules import LONGEST_SLEEP, RETRY_PAUSE, Schedule, Scheduler, schedules_of
from tinysvc.jobs.service_jobs import ServiceJobs
from tinysvc.runtime.running_service import at_work
from tinysvc.service.plan import Plan, plans_of

HOUR = 3600.0
DAY = 24 * HOUR


class Clock:
    """A clock that a test sets."""

    def __init__(self, text: str = "2026-07-01T14:00Z") -> None:
        self.now = datetime.fromisoformat(text).timestamp()

    def __call__(self) -> float:
        return self.now


class Store:
    """Keeps the newest tick of each schedule, by the rules of `jobs/store.py: Store.schedule`."""

    def __init__(self) -> None:
        self.newest: dict[str, float] = {}
        self.accepted: list[tuple[str, float]] = []
        self.error: Exception | None = None

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        if self.error is not None:
            raise self.error
        if new is None:
            self.newest.setdefault(name, tick)
            return False
        if tick <= self.newest.get(name, float("-inf")):
            return False
        self.newest[name] = tick
        self.accepted.append((name, tick))
        return True

    async def last_tick(self, name: str) -> float | None:
        return self.newest.get(name)


def new_job() -> NewJob:
    return NewJob(route="/cleanups", request=b"", body=b"", digest=b"", keep=60, max_attempts=1)


def server(store: Store, clock: Clock, *expressions: str) -> Scheduler:
    """The schedules of one server process that starts now."""
    return Scheduler(store, [Schedule(each, Cron(each), new_job) for each in expressions or ("0 3 * * *",)], clock)


@pytest.mark.asyncio
async def test_each_tick_gives_one_job() -> None:
    store, clock = Store(), Clock()
    start, scheduler = clock.now, server(store, clock)
    for _ in range(3 * 24 * 60):
        await scheduler.step()
        clock.now += 60
    assert [tick - start for _, tick in store.accepted] == [13 * HOUR, 37 * HOUR, 61 * HOUR]


@pytest.mark.asyncio
async def test_new_schedule_has_no_job_for_the_time_before_it() -> None:
    store, clock = Store(), Clock()
    await server(store, clock).step()
    assert store.accepted == []


@pytest.mark.asyncio
async def test_missed_ticks_get_one_job_when_a_server_starts() -> None:
    store, clock = Store(), Clock()
    await server(store, clock).step()
    clock.now += 5 * DAY
    restarted = server(store, clock)
    await restarted.step()
    await restarted.step()
    assert [tick for _, tick in store.accepted] == [clock.now - 11 * HOUR]


@pytest.mark.asyncio
async def test_schedule_that_was_missed_before_its_first_tick_gets_a_job() -> None:
    store, clock = Store(), Clock()
    await server(store, clock).step()
    clock.now += 14 * HOUR
    await server(store, clock).step()
    assert len(store.accepted) == 1


@pytest.mark.asyncio
async def test_several_servers_give_one_job_for_a_tick() -> None:
    store, clock = Store(), Clock()
    servers = [server(store, clock) for _ in range(4)]
    for _ in range(48):
        await asyncio.gather(*(each.step() for each in servers))
        clock.now += HOUR
    assert len(store.accepted) == 2


@pytest.mark.asyncio
async def test_clock_that_is_set_back_repeats_no_tick() -> None:
    store, clock = Store(), Clock()
    scheduler = server(store, clock, "0 * * * *")
    for change in (0, 2 * HOUR, -3 * HOUR, HOUR, HOUR, HOUR):
        clock.now += change
        await scheduler.step()
    assert len(store.accepted) == 1
    clock.now += HOUR
    await scheduler.step()
    assert len(store.accepted) == 2


@pytest.mark.asyncio
async def test_clock_that_jumps_ahead_gives_one_job() -> None:
    store, clock = Store(), Clock()
    scheduler = server(store, clock)
    await scheduler.step()
    clock.now += 30 * DAY
    await scheduler.step()
    await scheduler.step()
    assert len(store.accepted) == 1


@pytest.mark.asyncio
async def test_tick_that_a_wrong_clock_has_used_up_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = Store(), Clock()
    scheduler = server(store, clock)
    clock.now += 365 * DAY
    await scheduler.step()
    clock.now += DAY
    await scheduler.step()
    clock.now -= 366 * DAY
    with caplog.at_level(logging.WARNING):
        await server(store, clock).step()
    assert "'0 3 * * *' starts no job before 2027-07-02T03:00:00+00:00" in caplog.text


@pytest.mark.asyncio
async def test_tick_that_another_server_has_sent_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = Store(), Clock()
    servers = [server(store, clock), server(store, clock)]
    for change in (0, DAY):
        clock.now += change
        for each in servers:
            await each.step()
    assert len(store.accepted) == 1
    assert not caplog.records


@pytest.mark.asyncio
async def test_schedule_with_too_many_jobs_starts_later_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = MemoryStore(), Clock()
    store.clock = clock
    full = Schedule("full", Cron("0 3 * * *"), lambda: replace(new_job(), max_waiting=1))
    scheduler = Scheduler(store, [Schedule("free", Cron("0 3 * * *"), new_job), full], clock)
    await scheduler.step()
    waiting = (await store.submit(new_job())).record.id
    clock.now += DAY
    assert [await scheduler.step() for _ in range(3)] == [RETRY_PAUSE] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "the schedule 'full' cannot start its job now; it starts later: 1 durable jobs of /cleanups wait already."
    ]
    assert len(store.records) == 2
    for job_id in list(store.records):
        await store.cancel(job_id)
    assert await scheduler.step() > RETRY_PAUSE
    assert len(store.records) == 3
    assert store.records[waiting].state == State.CANCELLED


@pytest.mark.asyncio
async def test_store_that_is_away_gets_the_job_later(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = Store(), Clock()
    scheduler = server(store, clock)
    await scheduler.step()
    clock.now += DAY
    store.error = StoreError("locked")
    assert [await scheduler.step() for _ in range(3)] == [RETRY_PAUSE] * 3
    assert "scheduled jobs now; they start later" in caplog.text
    assert len(caplog.records) == 1
    store.error = None
    await scheduler.step()
    assert len(store.accepted) == 1


@pytest.mark.asyncio
async def test_store_that_is_away_at_the_start_is_asked_again() -> None:
    store, clock = Store(), Clock()
    scheduler = server(store, clock, "0 3 * * *", "0 4 * * *")
    store.error = StoreError("locked")
    assert await scheduler.step() == RETRY_PAUSE
    store.error = None
    await scheduler.step()
    clock.now += DAY
    await scheduler.step()
    assert sorted(name for name, _ in store.accepted) == ["0 3 * * *", "0 4 * * *"]


@pytest.mark.asyncio
async def test_schedule_whose_job_cannot_be_made_is_logged_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> NewJob:
        raise ValueError("no default any more")

    store, clock = Store(), Clock()
    schedules = [Schedule("broken", Cron("0 3 * * *"), broken), Schedule("good", Cron("0 3 * * *"), new_job)]
    scheduler = Scheduler(store, schedules, clock)
    await scheduler.step()
    clock.now += DAY
    await scheduler.step()
    await scheduler.step()
    assert [name for name, _ in store.accepted] == ["good"]
    assert {each.getMessage() for each in caplog.records} == {"the schedule 'broken' cannot start its job"}


@pytest.mark.asyncio
async def test_pause_ends_with_the_next_tick() -> None:
    store, clock = Store(), Clock("2026-07-01T02:59:50Z")
    scheduler = server(store, clock, "0 3 * * *", "0 4 * * *")
    assert await scheduler.step() == 10
    clock.now += 10
    assert await scheduler.step() == LONGEST_SLEEP
    assert len(store.accepted) == 1


@pytest.mark.asyncio
async def test_loop_sends_ticks_until_it_is_cancelled() -> None:
    store, clock = Store(), Clock("2026-07-01T02:59:59.990Z")
    scheduler = server(store, clock)
    accepted = asyncio.Event()

    def advancing() -> float:
        clock.now += 0.004
        if store.accepted:
            accepted.set()
        return clock.now

    scheduler._clock = advancing
    task = asyncio.create_task(scheduler.run())
    await asyncio.wait_for(accepted.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_service_without_schedules_runs_no_loop() -> None:
    await asyncio.wait_for(Scheduler(Store(), []).run(), 30)


@job_route("/cleanups", every="0 3 * * *", zone="Europe/Berlin")
def cleanup() -> None: ...


@job_route("/trainings")
def train() -> None: ...


def test_schedules_of_a_service() -> None:
    inner = Service(cleanup, train, prefix="/a")
    plans = list(plans_of(Service(inner, Service(cleanup, prefix="/b"))))
    made: list[Plan] = []

    def make(plan: Plan) -> NewJob:
        made.append(plan)
        return new_job()

    (found,) = schedules_of(plans, make)
    assert found.name == "/a/cleanups 0 3 * * * Europe/Berlin"
    assert found.cron.zone.key == "Europe/Berlin"
    found.new_job()
    assert [plan.path for plan in made] == ["/a/cleanups"]


# A whole service


@job_route("/counts", every="0 3 * * *")
def count(factor: int = 2, *, numbers: list[int] | None = None) -> int:
    return factor * len(numbers or [1, 2, 3])


@pytest.mark.asyncio
async def test_missed_tick_runs_in_a_worker() -> None:
    store = MemoryStore()
    store.ticks["/p/counts 0 3 * * * UTC"] = 0.0  # a server has run before

    def make(service: Service, settings: Settings) -> ServiceJobs:
        return ServiceJobs(service, settings, store, "me")

    async with at_work(Service(count, prefix="/p"), Settings(cpu_workers=1), None, make):
        await until(lambda: [record.state for record in store.records.values()] == [State.SUCCEEDED])
    (record,) = store.records.values()
    assert (record.route, record.max_attempts, store.results[record.id]) == ("/p/counts", 3, b"6")
    assert store.ticks["/p/counts 0 3 * * * UTC"] > record.created - 24 * HOUR
