"""rpc_replica.py: what becomes of each way in which an RPC ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest

import grpc
from http_ends import logged, on_loop
from raw_rpc import raw_rpc_server, rpc_calling
from system import until
from tinysvc.client import rpc_replica
from tinysvc.client.breaker import MAX_FAILURES
from tinysvc.client.rpc_replica import metadata_of
from tinysvc.core.call_errors import CallFailed, CallTimeout, CallUnavailable
from tinysvc.core.errors import HTTPError, QueueFull
from tinysvc.core.requests import Request
from tinysvc.core.responses import problem_response
from tinysvc.grpc.rpc_errors import status_of

Code = grpc.StatusCode


async def echo(message: bytes, context: Any) -> bytes:
    return message


async def ends(message: bytes, context: Any) -> bytes:
    await context.abort(Code[message.decode()], "why")
    return b""


async def stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(message[0]):
        yield b"" if number % 2 else b"x" * number
    if message[1:]:
        await context.abort(Code[message[1:].decode()], "half-way")


async def slow(message: bytes, context: Any) -> bytes:
    await asyncio.sleep(30)
    return b""


async def held_stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.sleep(30)


async def sent(messages: AsyncIterator[bytes], context: Any) -> bytes:
    return b",".join([message async for message in messages])


@on_loop
async def test_replies_and_statuses() -> None:
    async with raw_rpc_server(echo=echo, ends=ends) as server, rpc_calling(f"grpc://{server.target}") as caller:
        incoming = await caller.rpc("echo", b"a", [("X-Own", "1"), ("trace-bin", "AAE=")])
        assert (incoming.status, incoming.content, incoming.service, incoming.attempts) == (200, b"a", "callee", 1)
        assert (server.metadata[0]["x-own"], server.metadata[0]["trace-bin"]) == ("1", b"\0\1")
        for name, status in [("NOT_FOUND", 404), ("UNKNOWN", 500), ("DEADLINE_EXCEEDED", 504), ("CANCELLED", 503)]:
            incoming = await caller.rpc("ends", name.encode())
            assert (incoming.status, b"why" in incoming.content) == (status, True)


@on_loop
async def test_lost_connection_is_repeated_only_for_an_idempotent_call(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_rpc_server(ends=ends) as server, rpc_calling(f"grpc://{server.target}") as caller:
        with pytest.raises(CallFailed, match="The RPC has failed: why") as caught:  # as a lost connection ends it
            await caller.rpc("ends", b"UNAVAILABLE")
        assert caught.value.attempts == 1
        with pytest.raises(CallFailed) as caught:
            await caller.rpc("ends", b"UNAVAILABLE", idempotent=True)
        assert caught.value.attempts == 3
    logged(caplog)


@on_loop
async def test_call_that_was_not_started_goes_to_another_replica() -> None:
    error = QueueFull("the queue is full")
    error.never_started = True
    status = status_of(problem_response(error, Request("POST", "/")))

    async def full(message: bytes, context: Any) -> bytes:
        await context.abort(status.code, status.message, status.metadata)
        return b""

    async with raw_rpc_server(echo=full) as first, raw_rpc_server(echo=echo) as second:
        async with rpc_calling(f"grpc://{first.target}", f"grpc://{second.target}") as caller:
            while not first.metadata:
                assert (await caller.rpc("echo", b"a", deadline=monotonic() + 20)).content == b"a"
        async with rpc_calling(f"grpc://{first.target}") as caller:
            assert (await caller.rpc("echo", deadline=monotonic() + 0.5)).status == 503


@on_loop
async def test_stream_with_empty_messages() -> None:
    async with raw_rpc_server(stream=stream) as server, rpc_calling(f"grpc://{server.target}") as caller:
        found = [each async for each in await caller.rpc("stream", b"\4")]
        assert found == [b"", b"", b"xx", b""]
        assert [each async for each in await caller.rpc("stream", b"\0")] == []
        assert (await caller.rpc("stream", b"\0NOT_FOUND")).status == 404
        with pytest.raises(CallFailed, match="not whole: INTERNAL, half-way"):
            [each async for each in await caller.rpc("stream", b"\2INTERNAL")]
        incoming = await caller.rpc("stream", b"\2")
        await incoming.aclose()
        assert [each async for each in incoming] == []


@on_loop
async def test_stream_of_requests_and_the_error_of_its_iterator() -> None:
    async def messages() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise LookupError("of the iterator")

    async with (
        raw_rpc_server(sent=sent) as server,
        rpc_calling(f"grpc://{server.target}", max_body_size=10) as caller,
    ):
        assert (await caller.rpc("sent", messages)).content == b"a,b"
        with pytest.raises(LookupError, match="of the iterator"):
            await caller.rpc("sent", broken)

        async def large() -> AsyncIterator[bytes]:
            yield b"a" * 11

        with pytest.raises(HTTPError, match="at most 10 may be sent"):
            await caller.rpc("sent", large)


@on_loop
async def test_deadline_and_cancellation() -> None:
    async with raw_rpc_server(slow=slow) as server, rpc_calling(f"grpc://{server.target}") as caller:
        with pytest.raises(CallTimeout):
            await caller.rpc("slow", deadline=monotonic() + 0.2)
        call = asyncio.ensure_future(caller.rpc("slow"))
        while len(server.metadata) < 2:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        ((_, replica),) = caller.services.replicas()
        assert (replica.in_flight, replica.breaker.failures) == (0, 0)


@on_loop
async def test_replica_that_is_silent_for_long_is_avoided(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_replica, "SILENCE", 0.05)
    async with raw_rpc_server(slow=slow) as server, rpc_calling(f"grpc://{server.target}") as caller:
        late = [caller.rpc("slow", deadline=monotonic() + 0.2) for _ in range(MAX_FAILURES)]
        assert {type(each) for each in await asyncio.gather(*late, return_exceptions=True)} == {CallTimeout}
        ((_, replica),) = caller.services.replicas()
        assert replica.breaker.pauses == 1
    assert "is avoided until it responds: No response came for" in logged(caplog)[0]


@on_loop
async def test_calls_beyond_the_limit_of_a_connection_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_replica, "MAX_CALLS", 2)
    running, most, go_on = 0, 0, asyncio.Event()

    async def held(message: bytes, context: Any) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await go_on.wait()
        finally:
            running -= 1
        return message

    async with raw_rpc_server(held=held, echo=echo) as server, rpc_calling(f"grpc://{server.target}") as caller:
        await caller.rpc("echo")  # the connection is made
        calls = [asyncio.ensure_future(caller.rpc("held", b"a")) for _ in range(7)]
        while running < 2:
            await asyncio.sleep(0)
        with pytest.raises(CallTimeout):
            await caller.rpc("held", deadline=monotonic() + 0.05)
        calls[3].cancel()  # it waits for its turn
        calls[0].cancel()  # it runs: another one gets its turn
        go_on.set()
        found = await asyncio.gather(*calls, return_exceptions=True)
        ((_, replica),) = caller.services.replicas()
        assert (replica.in_flight, len(server.metadata)) == (0, 7)
    assert [type(each) is asyncio.CancelledError for each in found] == [True, False, False, True, False, False, False]
    assert most <= 3  # a cancelled one may end a moment later at the server


@on_loop
async def test_call_that_waits_begins_on_no_closed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_replica, "MAX_CALLS", 1)
    async with raw_rpc_server(slow=slow, echo=echo) as server, rpc_calling(f"grpc://{server.target}") as caller:
        await caller.rpc("echo")
        calls = [asyncio.ensure_future(caller.rpc(name)) for name in ("slow", "echo", "echo")]
        await until(lambda: len(server.metadata) == 2)  # the slow one runs, the others wait
        ((_, replica),) = caller.services.replicas()
        assert isinstance(replica, rpc_replica.RpcReplica)
        replica.connections.abort()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in found] == [CallFailed, CallUnavailable, CallUnavailable]
        assert (replica.in_flight, replica.connections.open, len(server.metadata)) == (0, [], 2)


@on_loop
async def test_stream_on_a_connection_that_is_closed_is_not_whole() -> None:
    async with raw_rpc_server(stream=held_stream) as server, rpc_calling(f"grpc://{server.target}") as caller:
        pieces = aiter(await caller.rpc("stream"))
        assert await anext(pieces) == b"a"
        ((_, replica),) = caller.services.replicas()
        assert isinstance(replica, rpc_replica.RpcReplica)
        closing = asyncio.get_running_loop().call_later(0.05, replica.connections.abort)
        with pytest.raises(CallFailed, match="not whole: its connection was closed here"):
            await anext(pieces)
        closing.cancel()


@on_loop
async def test_call_that_the_server_refuses_to_begin_is_repeated_and_blames_no_replica() -> None:
    text = "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))"  # REFUSED_STREAM

    async def refused(message: bytes, context: Any) -> bytes:
        if len(server.metadata) < 3:
            await context.abort(Code.UNAVAILABLE, text)
        return b"begun"

    async with raw_rpc_server(refused=refused) as server, rpc_calling(f"grpc://{server.target}") as caller:
        assert (await caller.rpc("refused")).content == b"begun"
        ((_, replica),) = caller.services.replicas()
        assert (replica.breaker.failures, len(server.metadata)) == (0, 3)


@on_loop
async def test_large_reply_is_refused() -> None:
    async with (
        raw_rpc_server(echo=echo) as server,
        rpc_calling(f"grpc://{server.target}", max_result_size=10) as caller,
    ):
        with pytest.raises(CallFailed, match="longer than 10 bytes") as caught:
            await caller.rpc("echo", b"a" * 20)
        assert (caught.value.service, caught.value.answered) == ("callee", 200)


@on_loop
async def test_cancelled_and_late_calls_leave_nothing() -> None:
    async with raw_rpc_server(slow=slow, stream=stream) as server, rpc_calling(f"grpc://{server.target}") as caller:
        before = len(asyncio.all_tasks())
        for _ in range(5):
            calls = [asyncio.ensure_future(caller.rpc("slow", deadline=monotonic() + 0.3)) for _ in range(20)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        for _ in range(20):
            (await caller.rpc("stream", b"\5")).discard()
        ((_, replica),) = caller.services.replicas()
        assert replica.in_flight == 0
        while len(asyncio.all_tasks()) > before + 1:  # the server's handlers end
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("name", "value"), [("x", "ü"), ("x", "a\n"), ("x-bin", "?")])
def test_header_that_no_metadata_can_hold_is_an_error(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"the header {name} goes over gRPC"):
        metadata_of([(name, value)])
