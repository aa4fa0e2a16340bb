"""Faults of the database and of a server process, with a real PostgreSQL. Nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

import stopped_server
from postgres import MISSING, Postgres, running_postgres
from postgres_proxy import PostgresProxy, proxied
from postgres_stores import HEAD, claimed, failed, new_job, opened, record_of, running, submitted, until
from system import is_alive
from tinysvc.core.job_errors import StoreError, StoreFull
from tinysvc.jobs.postgres.store import PostgresStore
from tinysvc.jobs.records import Failure, State

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
    pytest.mark.usefixtures("nothing_left"),
]


@pytest_asyncio.fixture
async def url(postgres: Postgres) -> str:
    return await postgres.create_schema()


@pytest_asyncio.fixture
async def proxy(postgres: Postgres) -> AsyncIterator[PostgresProxy]:
    async with proxied(postgres) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def store(url: str, proxy: PostgresProxy) -> AsyncIterator[PostgresStore]:
    """A store whose connections go through `proxy`."""
    async with opened(proxy.url(url)) as store:
        yield store


@pytest_asyncio.fixture
async def other(url: str) -> AsyncIterator[PostgresStore]:
    """Another server process, with connections of its own."""
    async with opened(url) as other:
        yield other


# ---- a commit with an unknown outcome


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_each_change_takes_place_once_although_its_commit_was_cut(
    store: PostgresStore, other: PostgresStore, proxy: PostgresProxy, moment: str
) -> None:
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        setattr(proxy, f"cut_{moment}_commit", 1)
        cuts += 1

    cut()
    job = (await store.submit(new_job(key="k", digest=b"d"))).record
    cut()
    mine = (await store.claim({"/trainings": 1}, 1))[0]
    assert (mine.record.id, mine.record.attempt, mine.body) == (job.id, 1, b"body")
    cut()
    assert await store.save(job.id, 1, b"value")
    cut()
    assert await store.fail(job.id, 1, Failure("error", "text", retry_at=time.time()))
    again = (await claimed(store)).record
    cut()
    assert await store.release(job.id, again.attempt, "shutdown")
    third = await claimed(store)
    assert (third.saved, third.record.attempt, third.record.used) == (b"value", 3, 1)
    cut()
    assert await store.finish(job.id, 3, HEAD, b"1234")
    record = await record_of(other, job.id)
    assert [each.cause for each in record.attempts] == ["error", "shutdown", "succeeded"]
    assert await other.result(job.id) == b"1234"

    job_id, attempt = await running(store)
    cut()
    assert (await store.cancel(job_id)).kind == "cancelled"
    cut()
    assert await store.stopped(job_id, attempt)
    job_id = await failed(store)
    cut()
    retried = await store.retry(job_id)
    assert retried == await record_of(other, job_id)
    cut()
    assert await store.schedule("daily", 100.0, new_job())
    assert not await other.schedule("daily", 100.0, new_job())
    assert (await other.page(None, None, 9, "")).counts == {"succeeded": 1, "cancelled": 1, "queued": 2}
    assert proxy.cuts == cuts


async def test_claim_that_was_given_up_is_found_by_the_next_one(
    store: PostgresStore, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await submitted(store)
    monkeypatch.setattr("tinysvc.jobs.postgres.store.PATIENCE", 0.3)
    proxy.cut_after_commit = 1
    claim = asyncio.ensure_future(store.claim({"/trainings": 1}, 1))
    await until(lambda: proxy.cuts == 1)
    await proxy.stop()
    with pytest.raises(StoreError):
        await claim
    await proxy.start()
    monkeypatch.undo()
    mine = await claimed(store)
    assert (mine.record.id, mine.record.attempt, mine.body) == (job.id, 1, b"body")
    assert await store.claim({"/trainings": 1}, 1) == []


async def test_claim_of_a_cancelled_caller_is_given_back(store: PostgresStore) -> None:
    job = await submitted(store)
    claim = asyncio.ensure_future(store.claim({"/trainings": 1}, 1))
    await asyncio.sleep(0)
    claim.cancel()
    await asyncio.wait([claim])
    again = (await claimed(store)).record
    assert (again.id, again.used) == (job.id, 0)


async def test_only_the_owner_writes_for_an_attempt(store: PostgresStore, other: PostgresStore) -> None:
    job_id, attempt = await running(store)
    assert not await other.save(job_id, attempt, b"value")
    assert not await other.finish(job_id, attempt, HEAD, b"")
    assert not await other.release(job_id, attempt, "shutdown")
    await other.cancel(job_id)
    assert not await other.stopped(job_id, attempt)
    assert await store.stopped(job_id, attempt)


async def test_late_commit_of_a_lost_connection_is_fenced(
    store: PostgresStore, other: PostgresStore, proxy: PostgresProxy
) -> None:
    job_id, attempt = await running(store)
    proxy.cut_before_commit = 1
    save = asyncio.ensure_future(store.save(job_id, attempt, b"late"))
    await until(lambda: proxy.cuts == 1)
    await proxy.stop()  # it cannot come back until another server has cancelled the job
    assert (await other.cancel(job_id)).kind == "cancelled"
    await proxy.start()
    assert not await save
    assert not (await record_of(other, job_id)).has_saved


# ---- a database that is away


async def test_without_the_database_clients_get_503_and_nothing_is_claimed(
    store: PostgresStore, other: PostgresStore, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinysvc.jobs.postgres.store.PATIENCE", 0.3)
    job_id, attempt = await running(store)
    waiting = await submitted(store)
    await proxy.stop()
    for change in (store.submit(new_job()), store.cancel(waiting.id), store.claim({"/trainings": 1}, 1)):
        with pytest.raises(StoreError) as caught:
            await change
        assert (caught.value.status, caught.value.headers) == (503, (("retry-after", "1"),))
    assert "PostgreSQL does not answer" in store.problem
    finish = asyncio.ensure_future(store.finish(job_id, attempt, HEAD, b"1234"))  # waits for the database
    await asyncio.sleep(0.2)
    assert not finish.done()
    await proxy.start()
    assert await finish
    assert store.problem == ""
    assert (await other.page(None, None, 9, "")).counts == {"succeeded": 1, "queued": 1}


@pytest.mark.timeout(60)
async def test_running_jobs_go_on_over_a_restart_of_postgresql() -> None:
    """Shut down in order, killed, and frozen: each within the lease."""
    with running_postgres(in_memory=True) as server:
        async with opened(await server.create_schema()) as store:
            missed: list[str] = []
            store.watch(lambda change: missed.append(change.id))
            for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                job_id, attempt = await running(store)
                missed.clear()
                await asyncio.to_thread(server.stop, how)
                save = asyncio.ensure_future(store.save(job_id, attempt, b"value"))
                submit = asyncio.ensure_future(store.submit(new_job("/other")))
                await asyncio.to_thread(server.start)
                assert await save
                assert (await submit).is_new
                assert await store.finish(job_id, attempt, HEAD, b"")
                await until(lambda: "" in missed)
            job_id, attempt = await running(store)
            with server.frozen():
                finish = asyncio.ensure_future(store.finish(job_id, attempt, HEAD, b""))
                await asyncio.sleep(0.3)
                assert not finish.done()
            assert await finish
            assert (await store.page(None, None, 1, "")).counts == {"succeeded": 4, "queued": 3}


async def test_full_disk_is_507_and_is_reported_until_there_is_room(url: str, postgres: Postgres) -> None:
    """PostgreSQL raises the error itself: a trigger plays the full disk."""
    schema = url.rpartition("=")[2]
    async with opened(url) as store:
        job_id, attempt = await running(store)
        await asyncio.to_thread(
            postgres.sql,
            f"CREATE FUNCTION {schema}.full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END$$; "
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.tinysvc_jobs "
            f"FOR EACH ROW EXECUTE FUNCTION {schema}.full_disk()",
        )
        results = await asyncio.gather(
            store.submit(new_job()), store.finish(job_id, attempt, HEAD, b""), return_exceptions=True
        )
        assert isinstance(results[0], StoreFull)
        assert results[1] is True  # one full table does not stop the others
        with pytest.raises(StoreFull):
            await store.submit(new_job())
        assert "could not extend file" in store.problem
        await asyncio.to_thread(postgres.sql, f"DROP TRIGGER full_disk ON {schema}.tinysvc_jobs")
        await submitted(store)
        assert store.problem == ""


# ---- leases


async def test_attempts_of_a_dead_server_start_again_after_its_lease(
    url: str, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinysvc.jobs.postgres.store.PATIENCE", 0.3)
    async with opened(proxy.url(url), lease=1.5) as dead, opened(url, lease=1.5) as other:
        job_id, attempt = await running(dead)
        cancelled, _ = await running(dead)
        await dead.cancel(cancelled)
        await proxy.stop()
        assert await other.claim({"/trainings": 5}, 5) == []
        again = (await claimed(other)).record
        assert (again.id, again.attempt, again.used) == (job_id, attempt + 1, 1)
        assert again.attempts[0].cause == "server-died"
        await until_async(lambda: is_free(other, cancelled))


async def test_server_that_cannot_renew_kills_before_its_lease_ends(url: str, proxy: PostgresProxy) -> None:
    async with opened(proxy.url(url), lease=2) as store, opened(url, lease=2) as other:
        killed: list[tuple[float, list[tuple[str, int]]]] = []
        store.lost(lambda attempts: killed.append((time.monotonic(), attempts)))
        job_id, attempt = await running(store)
        assert await other.claim({"/trainings": 1}, 1) == []
        proxy.frozen = True
        again = (await claimed(other)).record
        restarted = time.monotonic()
        assert [attempts for _, attempts in killed] == [[(job_id, attempt)]]
        assert killed[0][0] < restarted
        proxy.frozen = False
        assert not await store.finish(job_id, attempt, HEAD, b"late")
        assert await other.finish(job_id, again.attempt, HEAD, b"1234")
        await submitted(store)
        assert (await claimed(store)).record.state == State.RUNNING  # with a new lease


async def test_server_that_wakes_after_its_lease_kills_first(url: str) -> None:
    """A suspended machine: only the clock that counts suspended time goes on."""
    async with opened(url) as store:
        killed: list[tuple[str, int]] = []
        store.lost(killed.extend)
        job_id, attempt = await running(store)
        ahead = store.clock
        store.clock = lambda: ahead() + 26.0
        assert await store.claim({"/trainings": 1}, 1) == []  # nobody has looked at the clock before
        assert killed == [(job_id, attempt)]
        again = (await claimed(store)).record
        assert (again.attempt, again.attempts[0].cause) == (2, "lease-lost")


async def test_server_that_was_stopped_kills_first_when_it_goes_on(url: str) -> None:
    """SIGSTOP, another server takes the job, SIGCONT. The late result changes nothing."""
    command = [sys.executable, stopped_server.__file__, url, "2"]
    async with opened(url, lease=2) as other:
        job = await submitted(other)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        worker = int((await process.stdout.readline()).split()[1])
        process.send_signal(signal.SIGSTOP)
        process.stdin.write(b"\n")  # the result is there, and is read only when the process goes on
        again = (await claimed(other)).record
        assert (again.id, again.attempt, again.attempts[0].cause) == (job.id, 2, "server-died")
        assert is_alive(worker)  # it works for nothing, and cannot be reached
        process.send_signal(signal.SIGCONT)
        lines = (await process.stdout.read()).decode().splitlines()
        assert sorted(lines) == ["finish False", f"killed {job.id} 1"]
        await process.wait()
        assert not is_alive(worker)
        assert await record_of(other, job.id) == again
        assert await other.finish(job.id, 2, HEAD, b"1234")


async def test_lease_that_another_server_has_ended_is_noticed(url: str, postgres: Postgres) -> None:
    async with opened(url, lease=2) as store:
        killed: list[tuple[str, int]] = []
        store.lost(killed.extend)
        job_id, attempt = await running(store)
        schema = url.rpartition("=")[2]
        await asyncio.to_thread(postgres.sql, f"DELETE FROM {schema}.tinysvc_job_servers")
        await until(lambda: killed == [(job_id, attempt)])
        assert (await claimed(store)).record.attempt == 2


async def test_closed_server_leaves_nothing_to_wait_for(url: str, other: PostgresStore) -> None:
    async with opened(url) as store:
        job_id, _ = await running(store)
        cancelled, _ = await running(store)
        await store.cancel(cancelled)
    again = (await claimed(other)).record
    assert (again.id, again.used, again.attempts[0].cause) == (job_id, 0, "shutdown")
    assert await is_free(other, cancelled)


async def test_changes_of_another_server_are_reported(url: str, other: PostgresStore) -> None:
    async with opened(url) as store:
        seen: list[tuple[str, str]] = []
        store.watch(lambda change: seen.append((change.id, str(change.state))))
        jobs = await asyncio.gather(*(submitted(other) for _ in range(200)))
        await until(lambda: {(job.id, "queued") for job in jobs} <= set(seen))


async def test_tool_without_a_lease_can_look_and_cancel(url: str, other: PostgresStore) -> None:
    job_id, attempt = await running(other)
    tool = PostgresStore(url)
    await tool.open("", "")
    seen: list[str] = []
    tool.watch(lambda change: seen.append(change.id))
    assert await tool.claim({"/trainings": 1}, 1) == []
    assert (await tool.cancel(job_id)).owner != ""
    await other.stopped(job_id, attempt)
    await until(lambda: seen.count(job_id) == 2)
    assert await is_free(tool, job_id)
    await tool.aclose()


async def is_free(store: PostgresStore, job_id: str) -> bool:
    return (await record_of(store, job_id)).owner == ""


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_problems_are_logged_once(
    store: PostgresStore, proxy: PostgresProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tinysvc.jobs"):
        await proxy.stop()
        waiting = asyncio.ensure_future(store.submit(new_job()))
        await until(lambda: store.problem != "")
        await asyncio.sleep(0.3)  # time for further attempts to connect
        await proxy.start()
        await waiting
    texts = [record.getMessage() for record in caplog.records]
    assert [text.partition(":")[0] for text in texts] == ["PostgreSQL does not answer", "PostgreSQL answers again"]
