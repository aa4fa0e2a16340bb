"""keeper/server.py: the keeper serves processes that say who they are, and no slow reader holds it up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from keepers import new_job
from memory_store import MemoryStore
from system import until
from tinysvc.jobs.keeper.link import KeeperLink, KeeperRefuses, LinkLost
from tinysvc.jobs.keeper.messages import VERSION, Ask, Frames, Hello, Message, Welcome, raw
from tinysvc.jobs.keeper.server import KeeperServer
from tinysvc.jobs.keeper.socket import connected_socket
from tinysvc.jobs.records import MISSED, Change, Record

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[KeeperServer]:
    server = KeeperServer(MemoryStore(), "shop", tmp_path, lambda: None)
    await server.start()
    yield server
    await server.aclose()


async def link_to(folder: Path, hello: Hello) -> KeeperLink:
    return await KeeperLink.connect(folder, hello, lambda change: None, lambda claimed: None, lambda: None)


async def test_other_version_of_the_messages_is_refused(keeper: KeeperServer, tmp_path: Path) -> None:
    with pytest.raises(KeeperRefuses, match=f"speaks version {VERSION} .* version 99: stop that one first"):
        await link_to(tmp_path, Hello(99, "owner", "shop"))


@pytest.mark.parametrize(
    "messages",
    [[Ask(1, "get", raw(("id",)))], [Welcome(1)], [Hello(VERSION, "a", "shop"), Hello(VERSION, "a", "shop")]],
    ids=["no greeting", "a message of the keeper", "two greetings"],
)
async def test_message_out_of_turn_closes_the_connection(
    keeper: KeeperServer, tmp_path: Path, messages: list[Message]
) -> None:
    lost, received = asyncio.Event(), list[Message]()
    end = Frames(received.append, lost.set)
    await asyncio.get_running_loop().create_unix_connection(lambda: end, sock=connected_socket(tmp_path))
    for message in messages:
        end.send(message)
        if messages[0] is message and len(messages) > 1:
            await until(lambda: bool(received))
    await asyncio.wait_for(lost.wait(), 20)
    await until(lambda: not keeper.connections)
    assert not keeper.is_connected("a")


async def test_connection_is_counted_until_its_last_end(keeper: KeeperServer, tmp_path: Path) -> None:
    first, second = [await link_to(tmp_path, Hello(VERSION, "owner", "shop")) for _ in range(2)]
    assert keeper.is_connected("owner")
    first.close()
    await until(lambda: len(keeper.connections) == 1)
    assert keeper.is_connected("owner")
    second.close()
    await until(lambda: not keeper.is_connected("owner"))


async def test_slow_reader_gets_one_report_of_missed_changes(keeper: KeeperServer, tmp_path: Path) -> None:
    changes: list[Change] = []
    link = await KeeperLink.connect(
        tmp_path, Hello(VERSION, "owner", "shop"), changes.append, lambda claimed: None, lambda: None
    )
    [connection] = keeper.connections
    connection.frames.pause_writing()
    for _ in range(3):
        await keeper.store.submit(new_job())
    await asyncio.sleep(0)
    assert not connection.frames._out
    connection.frames.resume_writing()
    connection.frames.resume_writing()
    await until(lambda: bool(changes))
    assert changes == [MISSED]
    link.close()


async def test_keeper_that_ends_answers_the_calls_that_it_has_begun(
    keeper: KeeperServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def get(job_id: str) -> Record | None:
        begun.set()
        await goes_on.wait()
        return None

    monkeypatch.setattr(keeper.store, "get", get)
    link = await link_to(tmp_path, Hello(VERSION, "owner", "shop"))
    call = asyncio.create_task(link.ask("get", "1"))
    await begun.wait()
    end = asyncio.create_task(keeper.aclose())
    await asyncio.sleep(0)
    late = asyncio.create_task(link.ask("get", "2"))
    goes_on.set()
    assert await call is None
    with pytest.raises(LinkLost):
        await late
    await end


async def test_unexpected_error_is_logged(
    keeper: KeeperServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def get(job_id: str) -> Record | None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(keeper.store, "get", get)
    link = await link_to(tmp_path, Hello(VERSION, "owner", "shop"))
    with pytest.raises(Exception, match="ZeroDivisionError: surprise"):
        await link.ask("get", "1")
    assert "the store failed in get" in caplog.text
    link.close()


async def test_greeting_is_not_answered_while_the_store_fails(
    keeper: KeeperServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def attempts_of(owner: str) -> list[Record]:
        raise OSError("no disk")

    monkeypatch.setattr(keeper.store, "attempts_of", attempts_of)
    with pytest.raises(LinkLost):
        await link_to(tmp_path, Hello(VERSION, "owner", "shop"))
    assert "cannot serve another process now: no disk" in caplog.text
