"""shared_store.py: one keeper for several server processes, and the hand-over to another one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
import pytest_asyncio

from keepers import CAPACITY, Processes, new_job, processes
from system import until
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.job_errors import KeyReused, StoreError
from tinysvc.jobs.keeper import shared_store
from tinysvc.jobs.keeper.shared_store import SharedStore
from tinysvc.jobs.records import MISSED, Change, Claimed, Failure, Record, ResultHead, State
from tinysvc.jobs.store import Store

pytestmark = pytest.mark.asyncio

HEAD = ResultHead(status=200, content_type="application/json", size=2)


@pytest_asyncio.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path / "jobs.db") as all_of_them:
        yield all_of_them


async def claimed(store: SharedStore) -> Claimed:
    [one] = await store.claim(CAPACITY, 1)
    return one


async def record_of(store: SharedStore, job_id: str) -> Record:
    record = await store.get(job_id)
    assert record is not None
    return record


async def test_first_process_is_the_keeper_and_the_others_ask_it(servers: Processes) -> None:
    first, second, third = [await servers.start() for _ in range(3)]
    assert [each.is_keeper for each in (first, second, third)] == [True, False, False]
    accepted = await second.submit(new_job())
    assert (await third.get(accepted.record.id)) == (await first.get(accepted.record.id)) == accepted.record
    assert not any(each.problem for each in (first, second, third))


async def test_attempt_belongs_to_the_process_that_claims_it(servers: Processes) -> None:
    await servers.start()
    other = await servers.start()
    await other.submit(new_job())
    assert (await claimed(other)).record.owner == other.owner


async def test_errors_of_the_store_reach_the_process_that_asks(servers: Processes) -> None:
    await servers.start()
    other = await servers.start()
    await other.submit(new_job(key="k", digest=b"1"))
    with pytest.raises(KeyReused, match="'k' was used before"):
        await other.submit(new_job(key="k", digest=b"2"))


async def test_changes_reach_the_watchers_of_all_processes(servers: Processes) -> None:
    first, second = await servers.start(), await servers.start()
    seen: dict[SharedStore, list[Change]] = {first: [], second: []}
    for store in (first, second):
        store.watch(seen[store].append)
    accepted = (await second.submit(new_job())).record
    await until(lambda: len(seen[first]) == len(seen[second]) == 1)
    assert seen[first] == seen[second] == [Change(accepted.id, accepted.route, State.QUEUED, accepted.version)]


async def test_watcher_that_has_ended_gets_no_changes(servers: Processes) -> None:
    store = await servers.start()
    seen: list[Change] = []
    end = store.watch(seen.append)
    end()
    end()
    await store.submit(new_job())
    assert not seen


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "in order"])
async def test_another_process_takes_over(servers: Processes, is_killed: bool) -> None:
    keeper, other, third = [await servers.start() for _ in range(3)]
    accepted = (await other.submit(new_job())).record
    missed: list[Change] = []
    other.watch(missed.append)
    await (servers.kill(keeper) if is_killed else keeper.aclose())
    async with asyncio.timeout(2):
        await until(lambda: MISSED in missed)
    await until(lambda: not other.problem and not third.problem)
    assert sorted([other.is_keeper, third.is_keeper]) == [False, True]
    assert await other.get(accepted.id) == await third.get(accepted.id) == accepted


async def test_calls_wait_for_the_next_keeper(servers: Processes) -> None:
    keeper, other = await servers.start(), await servers.start()
    await servers.kill(keeper)
    accepted = [(await other.submit(new_job(key=key))).record.id for key in "abc"]
    assert len(set(accepted)) == 3


async def test_attempts_of_a_dead_keeper_end_and_those_of_others_continue(servers: Processes) -> None:
    keeper, other, _ = [await servers.start() for _ in range(3)]
    for _ in range(2):
        await keeper.submit(new_job())
    of_keeper, of_other = (await claimed(keeper)).record, (await claimed(other)).record
    await servers.kill(keeper)
    await until(lambda: servers.memory.records[of_keeper.id].state == State.QUEUED)
    lapsed = await record_of(other, of_keeper.id)
    assert [(each.cause, each.counts) for each in lapsed.attempts] == [("server-died", True)]
    assert await other.finish(of_other.id, of_other.attempt, HEAD, b"{}")
    assert (await record_of(other, of_other.id)).state == State.SUCCEEDED


async def test_attempts_of_another_dead_process_end(servers: Processes) -> None:
    keeper, other = await servers.start(), await servers.start()
    await keeper.submit(new_job())
    running = (await claimed(other)).record
    await servers.kill(other)
    await until(lambda: servers.memory.records[running.id].state == State.QUEUED)
    await until(lambda: other.owner not in os.listdir(servers.path.with_name("jobs.db-servers")))


async def test_attempt_waits_while_a_worker_of_its_dead_process_lives(servers: Processes) -> None:
    keeper, other = await servers.start(), await servers.start()
    await keeper.submit(new_job())
    running = (await claimed(other)).record
    [inherited] = other.inherited
    of_worker = os.dup(inherited)
    try:
        await servers.kill(other)
        server = keeper._keeper
        assert server is not None
        await until(lambda: not server.is_connected(other.owner))
        await asyncio.sleep(0.1)
        assert (await record_of(keeper, running.id)).state == State.RUNNING
    finally:
        os.close(of_worker)
    await until(lambda: servers.memory.records[running.id].state == State.QUEUED)


async def test_claim_whose_answer_is_lost_is_given_back(servers: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, other, _ = [await servers.start() for _ in range(3)]
    accepted = (await keeper.submit(new_job())).record
    claim = servers.memory.claim

    async def die_after_claim(*arguments: object, **options: object) -> list[Claimed]:
        found = await claim(*arguments, **options)  # type: ignore[arg-type]
        await servers.kill(keeper)
        return found

    monkeypatch.setattr(servers.memory, "claim", die_after_claim)
    assert await other.claim(CAPACITY, 1) == []
    monkeypatch.undo()
    await until(lambda: servers.memory.records[accepted.id].state == State.QUEUED)
    assert [(each.cause, each.counts) for each in (await record_of(other, accepted.id)).attempts] == [
        ("shutdown", False)
    ]
    assert (await claimed(other)).record.attempt == 2


@pytest.mark.parametrize("asks", [True, False], ids=["asks the keeper", "is the keeper"])
async def test_claim_of_a_cancelled_task_is_given_back(
    servers: Processes, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    keeper, other = await servers.start(), await servers.start()
    accepted = (await keeper.submit(new_job())).record
    claim, begun, goes_on = servers.memory.claim, asyncio.Event(), asyncio.Event()

    async def slow_claim(*arguments: object, **options: object) -> list[Claimed]:
        begun.set()
        await goes_on.wait()
        return await claim(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(servers.memory, "claim", slow_claim)
    task = asyncio.create_task((other if asks else keeper).claim(CAPACITY, 1))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    await until(lambda: servers.memory.records[accepted.id].attempt == 1)
    await until(lambda: servers.memory.records[accepted.id].state == State.QUEUED)


async def die_after(servers: Processes, keeper: SharedStore, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the keeper die after it has carried out the next call of a method, before its answer."""
    original = getattr(servers.memory, method)

    async def carry_out_and_die(*arguments: object) -> object:
        value = await original(*arguments)
        monkeypatch.undo()
        await servers.kill(keeper)
        return value

    monkeypatch.setattr(servers.memory, method, carry_out_and_die)


async def test_finish_that_was_committed_before_the_answer_is_not_taken_for_stale(
    servers: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, other = await servers.start(), await servers.start()
    await keeper.submit(new_job())
    running = (await claimed(other)).record
    await die_after(servers, keeper, "finish", monkeypatch)
    assert await other.finish(running.id, running.attempt, HEAD, b"{}")
    assert not await other.finish(running.id, running.attempt, HEAD, b"{}"), "a second one is stale"


@pytest.mark.parametrize("key", ["", "k"])
async def test_submit_without_a_key_is_not_repeated(
    servers: Processes, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    keeper, other = await servers.start(), await servers.start()
    await die_after(servers, keeper, "submit", monkeypatch)
    if key:
        assert (await other.submit(new_job(key=key))).record.key == key
    else:
        with pytest.raises(StoreError, match="died during this call"):
            await other.submit(new_job())
    assert len(servers.memory.records) == 1


async def test_retry_that_was_committed_before_the_answer_returns_its_record(
    servers: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, other = await servers.start(), await servers.start()
    await keeper.submit(new_job())
    running = (await claimed(other)).record
    assert await other.fail(running.id, running.attempt, Failure("error", problem={"status": 500}))
    await die_after(servers, keeper, "retry", monkeypatch)
    retried = await other.retry(running.id)
    assert isinstance(retried, Record)
    assert retried.state == State.QUEUED


async def test_call_fails_when_no_keeper_comes(servers: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "HANDOVER_TIME", 0.1)
    keeper, other = await servers.start(), await servers.start()

    async def no_keeper() -> bool:
        return False

    monkeypatch.setattr(other, "_find", no_keeper)
    await servers.kill(keeper)
    with pytest.raises(StoreError, match="another one takes over"):
        await other.next_due()
    assert other.problem


async def test_another_service_is_refused(servers: Processes) -> None:
    await servers.start("shop")
    with pytest.raises(ConfigurationError, match=r"jobs\.db cannot be used: it belongs to the service 'shop'.*--jobs"):
        await servers.start("bank")


async def test_process_without_a_service_is_not_refused(servers: Processes) -> None:
    keeper = await servers.start("shop")
    accepted = (await keeper.submit(new_job())).record
    command = await servers.start("", owner="")
    assert (await command.page(None, None, 10, "")).records == [accepted]
    with pytest.raises(StoreError, match="cannot run durable jobs"):
        await command.claim(CAPACITY, 1)


async def test_store_with_a_very_long_path_is_shared(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with processes(folder / "jobs.db") as servers:
        _, other = await servers.start(), await servers.start()
        assert not other.is_keeper
        assert (await other.submit(new_job())).is_new


async def test_link_to_the_file_is_the_same_store(servers: Processes, tmp_path: Path) -> None:
    await servers.start()
    servers.path.touch()
    (tmp_path / "link.db").symlink_to(servers.path)
    servers.path = tmp_path / "link.db"
    assert not (await servers.start()).is_keeper


async def test_keeper_that_does_not_answer_ends_the_start(servers: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_store, "OPEN_TIME", 0.2)
    keeper = await servers.start()
    assert keeper._keeper is not None
    assert keeper._keeper._server is not None
    keeper._keeper._server.close()
    with pytest.raises(ConfigurationError, match=f"its keeper, process {os.getpid()}, does not answer"):
        await servers.start()


async def test_missing_folder_is_named(tmp_path: Path) -> None:
    async with processes(tmp_path / "nowhere" / "jobs.db") as servers:
        with pytest.raises(ConfigurationError, match=r"cannot be opened: there is no folder .*nowhere; make it"):
            await servers.start()


async def test_nothing_is_left_in_the_folder_of_the_servers(servers: Processes) -> None:
    first, second = await servers.start(), await servers.start()
    await first.aclose()
    await second.aclose()
    assert os.listdir(servers.path.with_name("jobs.db-servers")) == []
    with pytest.raises(StoreError, match="the store is closed"):
        await second.get("1" * 32)


async def test_result_in_a_file_is_read_by_another_process(servers: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, other = await servers.start(), await servers.start()
    big = servers.path.with_name("big")
    big.write_bytes(b"big result")

    async def result(job_id: str) -> object:
        return await asyncio.to_thread(open, big, "rb") if job_id == "big" else b"small" if job_id else None

    monkeypatch.setattr(servers.memory, "result", result)
    assert await other.result("small") == b"small"
    assert await other.result("") is None
    file = await other.result("big")
    assert file is not None
    assert not isinstance(file, bytes)
    with file:
        assert file.read() == b"big result"
    assert keeper.is_keeper


async def test_broken_store_of_the_keeper_is_reported(servers: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks: list[Callable[[str], None]] = []
    monkeypatch.setattr(servers.memory, "broken", callbacks.append)
    keeper: Store = await servers.start()
    reasons: list[str] = []
    end = keeper.broken(reasons.append)
    callbacks[0]("fsync failed")
    end()
    callbacks[0]("again")
    assert reasons == ["fsync failed"]


async def test_store_without_a_lease_never_loses_attempts(servers: Processes) -> None:
    keeper: Store = await servers.start()
    lost: list[list[tuple[str, int]]] = []
    end = keeper.lost(lost.append)
    other = await servers.start()
    await servers.kill(other)
    end()
    assert not lost


async def test_keeper_that_is_the_command_line_serves_no_other_process(
    servers: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = await servers.start("", owner="")
    assert command.is_keeper
    monkeypatch.setattr(shared_store, "OPEN_TIME", 0.1)
    with pytest.raises(ConfigurationError, match="does not answer"):
        await servers.start("bank")
    await command.aclose()
    assert (await servers.start("bank")).is_keeper


async def test_calls_fail_at_once_while_the_store_cannot_be_opened_again(
    servers: Processes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared_store, "LONG_PAUSE", 0.01)
    keeper, other = await servers.start(), await servers.start()
    monkeypatch.setattr(servers.memory, "open", fails := AsyncMock(side_effect=ConfigurationError("it is damaged")))
    await servers.kill(keeper)
    await until(lambda: fails.call_count > 2)
    with pytest.raises(StoreError, match="it is damaged"):
        await other.submit(new_job())
    assert other.problem == "it is damaged"
    assert caplog.text.count("cannot be opened again: it is damaged") == 1
    monkeypatch.undo()
    await until(lambda: other.is_keeper)
    assert not other.problem
    assert (await other.submit(new_job())).is_new
