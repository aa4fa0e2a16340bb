"""call_metrics.py: calls by service, status and error; retries; replicas that are avoided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from time import monotonic
from typing import Any

import pytest

import grpc
from http_ends import on_loop
from raw_rpc import raw_rpc_server, rpc_calling
from raw_servers import Peer, calling, good, raw_server
from tinysvc.core.call_errors import CallFailed, CallTimeout
from tinysvc.core.errors import HTTPError
from tinysvc.runtime.call_metrics import CallMetrics
from tinysvc.telemetry.instruments import Registry

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


def values(registry: Registry, name: str) -> Mapping[tuple[str, ...], float]:
    """The value, or the number of observations, by labels."""
    (metric,) = [each for each in registry.snapshot() if each.name == name]
    return {tuple(point.labels): sum(point.counts) if point.counts else point.value for point in metric.points}


async def closes(peer: Peer) -> None:
    await peer.request()


@on_loop
async def test_calls_are_counted_by_their_result() -> None:
    registry = Registry()
    async with raw_server(good) as server, calling(server) as caller:
        CallMetrics(registry, caller.services)
        for _ in range(3):
            await caller.send("GET")
        assert list(values(registry, "tinysvc.call.breaker_open").values()) == [0]
        assert list(values(registry, "tinysvc.call.in_flight").values()) == [0]
    ((labels, number),) = values(registry, "http.client.request.duration").items()
    assert (labels[1:], number) == (("GET", "200", ""), 3)
    assert list(values(registry, "tinysvc.call.retries").values()) == [0]


@on_loop
async def test_failed_call_is_counted_with_its_retries() -> None:
    registry = Registry()
    async with raw_server(closes) as server, calling(server) as caller:
        CallMetrics(registry, caller.services)
        with pytest.raises(CallFailed):
            await caller.send("GET", idempotent=True)
        assert list(values(registry, "tinysvc.call.in_flight").values()) == [0]
    ((labels, number),) = values(registry, "http.client.request.duration").items()
    assert (labels[1:3], labels[3].startswith("Call"), number) == (("GET", ""), True, 1)
    assert list(values(registry, "tinysvc.call.retries").values()) >= [1]


async def ends(message: bytes, context: Any) -> bytes:
    if message:
        await context.abort(grpc.StatusCode[message.decode()], "why")
    return b""


async def waits(message: bytes, context: Any) -> bytes:
    await asyncio.sleep(30)
    return b""


async def stream(message: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"a"
    if message == b"long":
        await asyncio.sleep(30)
    elif message:
        await context.abort(grpc.StatusCode[message.decode()], "half-way")


def rpc_counts(registry: Registry) -> Mapping[tuple[str, ...], float]:
    """Number of calls by method, code and error."""
    found = values(registry, "rpc.client.call.duration")
    assert {(labels[0], labels[1]) for labels in found} <= {("callee", "grpc")}
    return {labels[2:]: number for labels, number in found.items()}


@on_loop
async def test_calls_over_grpc_are_counted_by_method_and_code() -> None:
    registry = Registry()
    async with raw_rpc_server(ends=ends, waits=waits) as server, rpc_calling(f"grpc://{server.target}") as caller:
        CallMetrics(registry, caller.services)
        for message in (b"", b"", b"NOT_FOUND"):
            await caller.rpc("ends", message)
        with pytest.raises(CallFailed):
            await caller.rpc("ends", b"UNAVAILABLE")  # without details, as for a lost connection
        with pytest.raises(CallTimeout):
            await caller.rpc("waits", deadline=monotonic() + 0.1)
        calling = asyncio.create_task(caller.rpc("waits"))
        await asyncio.sleep(0.05)
        calling.cancel()
        await asyncio.wait([calling])
    assert rpc_counts(registry) == {
        ("raw/ends", "OK", ""): 2,
        ("raw/ends", "NOT_FOUND", "NOT_FOUND"): 1,
        ("raw/ends", "UNAVAILABLE", "UNAVAILABLE"): 1,
        ("raw/waits", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"): 1,
        ("raw/waits", "CANCELLED", "CANCELLED"): 1,
    }
    assert not values(registry, "http.client.request.duration")
    assert sum(values(registry, "tinysvc.call.retries").values()) == 0


@on_loop
async def test_stream_over_grpc_is_counted_at_its_end() -> None:
    registry = Registry()
    async with raw_rpc_server(stream=stream) as server, rpc_calling(f"grpc://{server.target}") as caller:
        CallMetrics(registry, caller.services)
        incoming = await caller.rpc("stream", b"long")
        assert not rpc_counts(registry)
        incoming.discard()
        incoming.discard()
        assert [each async for each in await caller.rpc("stream")] == [b"a"]
        with pytest.raises(CallFailed, match="half-way"):
            [each async for each in await caller.rpc("stream", b"INTERNAL")]
    assert rpc_counts(registry) == {
        ("raw/stream", "CANCELLED", "CANCELLED"): 1,
        ("raw/stream", "OK", ""): 1,
        ("raw/stream", "INTERNAL", "INTERNAL"): 1,
    }


@on_loop
async def test_error_of_the_callers_own_iterator_has_no_code() -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"a"
        raise HTTPError(418, "the caller's own")

    async def sent(messages: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([message async for message in messages])

    registry = Registry()
    async with raw_rpc_server(sent=sent) as server, rpc_calling(f"grpc://{server.target}") as caller:
        CallMetrics(registry, caller.services)
        with pytest.raises(HTTPError, match="the caller's own"):
            await caller.rpc("sent", breaks)
    assert rpc_counts(registry) == {("raw/sent", "", "HTTPError"): 1}
