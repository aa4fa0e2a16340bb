"""keeper/messages.py: messages and frames between the keeper and other server processes."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tinysvc.core.job_errors import JobError, KeyReused, StoreError, StoreFull, TooManyWaiting
from tinysvc.jobs.keeper.messages import (
    LENGTH,
    METHODS,
    Answer,
    Ask,
    Changed,
    Frames,
    Hello,
    Message,
    error_of,
    raised,
    raw,
)
from tinysvc.jobs.records import MISSED
from tinysvc.jobs.store import LocalStore, Store

MESSAGES: list[Message] = [
    Hello(1, "owner", "service", [("id", 3)]),
    Ask(1, "get", raw(("id",))),
    Answer(1, raw(b"x" * 300_000)),
    Changed(MISSED),
]


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[Frames, Frames, list[Message], asyncio.Event]]:
    """Two ends of a connection, the messages that the second one receives, and the event of its loss."""
    received: list[Message] = []
    lost = asyncio.Event()
    first, second = Frames(lambda _: None, lambda: None), Frames(received.append, lost.set)
    for end, sock in zip((first, second), socket.socketpair(), strict=True):
        await asyncio.get_running_loop().create_unix_connection(lambda end=end: end, sock=sock)  # type: ignore[misc]
    try:
        yield first, second, received, lost
    finally:
        first.abort()
        second.abort()
        await lost.wait()


@pytest.mark.asyncio
async def test_messages_arrive_in_their_order() -> None:
    async with ends() as (first, _, received, lost):
        for message in MESSAGES:
            first.send(message)
        first.close()
        await lost.wait()
        assert received == MESSAGES


@pytest.mark.asyncio
async def test_frames_may_arrive_byte_by_byte() -> None:
    received: list[Message] = []
    end = Frames(received.append, lambda: None)
    content = b"".join(
        LENGTH.pack(len(data)) + data for data in (bytes(raw(message)) for message in (MESSAGES[0], MESSAGES[3]))
    )
    for number in range(len(content)):
        end.data_received(content[number : number + 1])
    assert received == [MESSAGES[0], MESSAGES[3]]


@pytest.mark.asyncio
async def test_broken_message_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with ends() as (first, _, received, lost):
        first._out.append(LENGTH.pack(3) + b"\xc1\xc1\xc1")
        first.close()
        await lost.wait()
        assert not received
    assert "broken message" in caplog.text


@pytest.mark.asyncio
async def test_message_after_the_loss_is_dropped() -> None:
    async with ends() as (first, second, received, _):
        first.abort()
        await asyncio.sleep(0)
        first.send(MESSAGES[0])
        await asyncio.sleep(0)
        second.close()
        assert not received


def test_all_methods_of_a_store_travel() -> None:
    methods = {name for name, _ in inspect.getmembers(Store, inspect.iscoroutinefunction)}
    assert set(METHODS) == methods - {"open", "aclose"}
    for name, method in METHODS.items():
        parameters = list(inspect.signature(getattr(LocalStore, name)).parameters)
        taken = [each for each in parameters if each not in ("self", "owner")]
        assert method.arguments.type.__args__.__len__() == len(taken), name


@pytest.mark.parametrize(
    "error",
    [StoreError("no", 4), StoreFull("full", 7), KeyReused("k"), TooManyWaiting("12 wait", 3)],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way(error: JobError) -> None:
    found = error_of(raised(1, error))
    assert type(found) is type(error)
    assert isinstance(found, JobError)
    assert (str(found), found.headers) == (str(error), error.headers)


def test_value_error_of_a_cursor_survives_the_way() -> None:
    found = error_of(raised(1, ValueError("no cursor")))
    assert type(found) is ValueError
    assert str(found) == "no cursor"


def test_unknown_error_becomes_a_store_error() -> None:
    found = error_of(raised(1, ZeroDivisionError("surprise")))
    assert type(found) is StoreError
    assert str(found) == "ZeroDivisionError: surprise"
