"""keeper/link.py: calls over the keeper's socket, and their ends when the keeper ends or does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from keepers import CAPACITY, new_job
from memory_store import MemoryStore
from system import until
from tinysvc.core.job_errors import StoreError
from tinysvc.jobs.keeper import link as keeper_link
from tinysvc.jobs.keeper.link import KeeperLink, LinkLost
from tinysvc.jobs.keeper.messages import VERSION, Answer, Hello, Raised, raw
from tinysvc.jobs.keeper.server import KeeperServer
from tinysvc.jobs.keeper.socket import listening_socket
from tinysvc.jobs.records import Claimed, State

pytestmark = pytest.mark.asyncio

HELLO = Hello(VERSION, "owner", "shop")


class Ends:
    """A keeper, and a link to it."""

    def __init__(self, keeper: KeeperServer, link: KeeperLink, lost: asyncio.Event, store: MemoryStore) -> None:
        self.keeper = keeper
        self.link = link
        self.lost = lost
        self.store = store

    def pause(self, monkeypatch: pytest.MonkeyPatch, method: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Let a method of the store wait. Events: it has begun; it may go on."""
        original, begun, goes_on = getattr(self.store, method), asyncio.Event(), asyncio.Event()

        async def wait(*arguments: object, **options: object) -> object:
            begun.set()
            await goes_on.wait()
            return await original(*arguments, **options)

        monkeypatch.setattr(self.store, method, wait)
        return begun, goes_on


@pytest.fixture
def claimed() -> list[Claimed]:
    """The attempts that the link has reported."""
    return []


@pytest_asyncio.fixture
async def ends(tmp_path: Path, claimed: list[Claimed]) -> AsyncIterator[Ends]:
    store, lost = MemoryStore(), asyncio.Event()
    keeper = KeeperServer(store, "shop", tmp_path, lambda: None)
    await keeper.start()
    link = await KeeperLink.connect(tmp_path, HELLO, lambda change: None, claimed.extend, lost.set)
    yield Ends(keeper, link, lost, store)
    link.close()
    await keeper.aclose()


async def test_calls_do_not_wait_for_each_other(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, goes_on = ends.pause(monkeypatch, "next_due")
    slow = asyncio.create_task(ends.link.ask("next_due"))
    await begun.wait()
    assert await ends.link.ask("get", "1") is None
    goes_on.set()
    assert await slow is None


async def test_lost_connection_ends_all_calls(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, _ = ends.pause(monkeypatch, "get")
    calls = [asyncio.create_task(ends.link.ask("get", str(number))) for number in range(3)]
    await begun.wait()
    [connection] = ends.keeper.connections
    connection.frames.abort()
    for call in calls:
        with pytest.raises(LinkLost):
            await call
    assert ends.lost.is_set()
    with pytest.raises(LinkLost):
        await ends.link.ask("get", "1")
    for tasks in ends.keeper.calls.values():
        for task in tasks:
            task.cancel()


async def test_keeper_that_does_not_answer_is_an_error_of_the_store(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_link, "ANSWER_TIME", 0.01)
    _, goes_on = ends.pause(monkeypatch, "get")
    with pytest.raises(StoreError, match="did not answer in time"):
        await ends.link.ask("get", "1")
    goes_on.set()


async def test_claim_that_was_answered_too_late_is_given_back(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = (await ends.store.submit(new_job())).record
    monkeypatch.setattr(keeper_link, "ANSWER_TIME", 0.01)
    _, goes_on = ends.pause(monkeypatch, "claim")
    with pytest.raises(StoreError, match="did not answer in time"):
        await ends.link.ask("claim", CAPACITY, 1)
    goes_on.set()
    await until(lambda: ends.store.records[accepted.id].attempt == 1)
    await until(lambda: ends.store.records[accepted.id].state == State.QUEUED)


async def test_answer_without_a_question_is_ignored(ends: Ends) -> None:
    ends.link._on_message(Answer(99, raw(None)))
    ends.link._on_message(Raised(99, "StoreError", ["no"]))
    assert await ends.link.ask("next_due") is None


async def test_keeper_that_does_not_greet_counts_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_link, "ANSWER_TIME", 0.01)
    with listening_socket(tmp_path), pytest.raises(LinkLost):
        await KeeperLink.connect(tmp_path, HELLO, lambda change: None, lambda claimed: None, lambda: None)


async def test_closed_link_does_not_report_its_loss(ends: Ends) -> None:
    ends.link.close()
    await until(lambda: not ends.keeper.connections)
    assert not ends.lost.is_set()


async def test_claimed_attempts_are_reported_before_a_loss_that_follows(ends: Ends, claimed: list[Claimed]) -> None:
    await ends.store.submit(new_job())
    call = asyncio.create_task(ends.link.ask("claim", CAPACITY, 1))
    await asyncio.sleep(0)
    value = await ends.store.claim(CAPACITY, 1)
    ends.link._on_message(Answer(1, raw(value)))
    ends.link._lost()
    assert claimed == value
    assert await call == value


async def test_claim_that_is_answered_while_its_caller_is_cancelled_is_given_back(
    ends: Ends, claimed: list[Claimed]
) -> None:
    accepted = (await ends.store.submit(new_job())).record
    call = asyncio.create_task(ends.link.ask("claim", {}, 1))
    await asyncio.sleep(0)
    value = await ends.store.claim(CAPACITY, 1)
    call.cancel()
    ends.link._on_message(Answer(1, raw(value)))
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not claimed
    await until(lambda: ends.store.records[accepted.id].state == State.QUEUED)
