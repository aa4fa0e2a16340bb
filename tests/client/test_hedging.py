"""hedging.py: a second attempt at another replica; the loser is cancelled."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from http_ends import on_loop
from raw_servers import OK, Peer, calling, good, is_silent, raw_server, resets_unanswered
from tinysvc.core.call_errors import CallFailed, CallTimeout

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


@on_loop
async def test_hedge_goes_to_another_replica_and_the_loser_is_cancelled() -> None:
    async with raw_server(is_silent) as slow, raw_server(good) as server, calling(slow, server) as caller:
        while len(slow.requests) < 3:
            assert await caller.text("GET", hedge=0.02) == "ok"
        while slow.open:  # each connection to it was closed
            await asyncio.sleep(0.01)


@on_loop
async def test_fast_response_is_not_hedged() -> None:
    async with raw_server(good) as one, raw_server(good) as other, calling(one, other) as caller:
        for _ in range(20):
            assert await caller.text("GET", hedge=5.0) == "ok"
        assert len(one.requests) + len(other.requests) == 20


@pytest.mark.parametrize("replicas", [1, 2])
@on_loop
async def test_neither_unsafe_calls_nor_single_replicas_are_hedged(replicas: int) -> None:
    async with raw_server(is_silent) as one, raw_server(is_silent) as other:
        async with calling(*[one, other][:replicas]) as caller:
            with pytest.raises(CallTimeout):
                await caller.send("POST" if replicas == 2 else "GET", within=0.1, hedge=0.01)
        assert len(one.requests) + len(other.requests) == 1


@on_loop
async def test_hedges_are_charged_to_the_retry_budget() -> None:
    async with raw_server(is_silent) as one, raw_server(is_silent) as other, calling(one, other) as caller:
        calls = [caller.send("GET", within=0.2, hedge=0.01) for _ in range(40)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, CallTimeout) for each in ended)
        assert 40 < len(one.requests) + len(other.requests) <= 40 + 4 + 10


@on_loop
async def test_failed_hedge_does_not_end_the_first_attempt() -> None:
    async def answers_late(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.1)
        peer.send(OK)
        await peer.closed()

    for _ in range(4):
        async with raw_server(answers_late) as slow, raw_server(resets_unanswered) as bad, calling(slow, bad) as caller:
            assert await caller.text("GET", hedge=0.02, within=5.0) == "ok"


@on_loop
async def test_all_attempts_failed_is_the_first_error() -> None:
    dies = resets_unanswered
    async with raw_server(dies) as one, raw_server(dies) as other, calling(one, other) as caller:
        with pytest.raises(CallFailed, match="without a response"):
            await caller.send("GET", hedge=0.0001)


@on_loop
async def test_cancelled_call_cancels_both_attempts() -> None:
    async with raw_server(is_silent) as one, raw_server(is_silent) as other, calling(one, other) as caller:
        call = asyncio.create_task(caller.send("GET", hedge=0.01))
        while not (one.requests and other.requests):
            await asyncio.sleep(0.005)
        begin = monotonic()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        while one.open or other.open:
            await asyncio.sleep(0.001)
        assert monotonic() - begin < 1.0
