"""The bytes that a connection has received and its task has not taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tinysvc.core.settings import Settings
from tinysvc.wire.connection import ServerConnection
from tinysvc.wire.inbox import PIECE_OVERHEAD, READ_SIZE, Inbox


class Transport:
    """It notes whether reading is paused."""

    paused = closing = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closing


@pytest.fixture
def inbox() -> Inbox:
    made = Inbox(ServerConnection(Settings()), limit=1000)
    transport: Any = Transport()
    made.transport = transport
    return made


def is_paused(inbox: Inbox) -> bool:
    transport: Any = inbox.transport
    return bool(transport.paused)


def test_bytes_are_held_while_the_task_does_not_wait(inbox: Inbox) -> None:
    inbox.put(b"abc")
    assert inbox.has_bytes
    assert inbox.size == 3
    assert inbox.fill_buffer()
    assert inbox.take_all() == b"abc"
    assert not inbox.fill_buffer()


@pytest.mark.asyncio
async def test_bytes_go_to_the_waiting_task(inbox: Inbox) -> None:
    for piece in (b"abc", b"def"):
        inbox.waiter = asyncio.get_running_loop().create_future()
        waiter = inbox.waiter
        assert inbox.is_awaited() == (piece == b"abc")
        inbox.put(piece)
        assert await waiter
    assert inbox.take_all() == b"abcdef"


@pytest.mark.asyncio
async def test_many_bytes_at_once_come_in_portions(inbox: Inbox) -> None:
    inbox.waiter = waiter = asyncio.get_running_loop().create_future()
    inbox.put(bytes(READ_SIZE + 1))
    assert await waiter
    assert is_paused(inbox)
    assert inbox.fill_buffer()
    assert not is_paused(inbox)
    assert inbox.size == 1


def test_small_pieces_count_more_than_their_bytes(inbox: Inbox) -> None:
    for _ in range(1000 // (PIECE_OVERHEAD + 1) + 1):
        assert not is_paused(inbox)
        inbox.put(b"a")
    assert is_paused(inbox)


def test_closing_transport_is_neither_paused_nor_resumed(inbox: Inbox) -> None:
    transport: Any = inbox.transport
    transport.closing = True
    inbox.put(bytes(2000))
    assert not transport.paused
    assert inbox.take() == bytes(2000)


def test_bytes_behind_a_body_are_bounded(inbox: Inbox) -> None:
    inbox.put(b"last")
    inbox._wire.buffer = bytes(READ_SIZE) + b"more"
    inbox.bound_buffer()
    assert len(inbox._wire.buffer) == READ_SIZE
    assert inbox.take() == b"morelast"


@pytest.mark.asyncio
async def test_deadline_reaches_the_waiting_task(inbox: Inbox) -> None:
    inbox.waiter = waiter = asyncio.get_running_loop().create_future()
    inbox.interrupt()
    with pytest.raises(TimeoutError):
        await waiter


@pytest.mark.asyncio
async def test_deadline_that_passes_before_is_raised_once(inbox: Inbox) -> None:
    loop = asyncio.get_running_loop()
    inbox.interrupt()
    with pytest.raises(TimeoutError):
        await inbox.read(loop)
    inbox.end()
    assert await inbox.read(loop) == b""


@pytest.mark.asyncio
async def test_read_waits_for_bytes_or_the_end(inbox: Inbox) -> None:
    loop = asyncio.get_running_loop()
    reading = asyncio.ensure_future(inbox.read(loop))
    await asyncio.sleep(0)
    inbox.put(b"abc")
    assert await reading == b"abc"
    reading = asyncio.ensure_future(inbox.read(loop))
    await asyncio.sleep(0)
    inbox.end()
    assert await reading == b""
    assert inbox.ended
