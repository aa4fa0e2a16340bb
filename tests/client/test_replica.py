"""replica.py: what the end of each call says about a replica."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

import pytest

from http_ends import logged, on_loop
from raw_servers import OK, Peer, answers, calling, good, is_silent, problem, raw_server, resets_unanswered
from tinysvc.client.breaker import MAX_FAILURES
from tinysvc.core.call_errors import CallFailed, CallTimeout, CallUnavailable

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


@on_loop
async def test_all_replicas_out_is_503_at_once_while_one_probe_continues(caplog: pytest.LogCaptureFixture) -> None:
    async def silent_then_good(peer: Peer) -> None:
        if server.connections <= MAX_FAILURES + 1:
            await is_silent(peer)
        else:
            await good(peer)

    async with raw_server(silent_then_good) as server, calling(server) as caller:
        calls = [asyncio.create_task(caller.text(within=0.6)) for _ in range(MAX_FAILURES)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in ended} == {CallTimeout}
        replica = caller.replicas.every[0]
        while replica.in_flight:
            await asyncio.sleep(0.01)
        replica.breaker.until += 60  # as long as the test needs
        begin = monotonic()
        with pytest.raises(CallUnavailable, match="all replicas are avoided") as raised:
            await caller.send()
        assert monotonic() - begin < 1.0
        assert raised.value.retry_after >= 1
        assert logged(caplog) == [f"{server.address} is avoided until it responds: The response did not come in time."]
        replica.breaker.until = monotonic()
        calls = [asyncio.create_task(caller.text(within=0.6)) for _ in range(20)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(each).__name__ for each in ended) == ["CallTimeout"] + ["CallUnavailable"] * 19
        while replica.in_flight:
            await asyncio.sleep(0.01)
        assert len(server.requests) == MAX_FAILURES + 1
        replica.breaker.until = monotonic()
        with caplog.at_level(logging.INFO, "tinysvc.client"):
            assert await caller.text() == "ok"  # the next probe
        assert "responds again" in caplog.text
        assert [await caller.text() for _ in range(5)] == ["ok"] * 5
        logged(caplog)


@on_loop
async def test_cancellation_at_the_deadline_counts_as_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """The limit of the handler that calls ends at the same moment, and cancels the call."""
    async with raw_server(is_silent) as server, calling(server) as caller:
        for number in range(MAX_FAILURES):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.4):
                    await caller.send(within=0.401)
            replica = caller.replicas.every[0]
            while replica.in_flight:
                await asyncio.sleep(0.01)
            assert replica.breaker.failures == number + 1
        replica.breaker.until += 60
        with pytest.raises(CallUnavailable):
            await caller.send()
        logged(caplog)


@on_loop
async def test_cancelled_probe_lets_the_next_one_begin() -> None:
    async with raw_server(is_silent, good) as server, calling(server) as caller:
        caller.open()
        breaker = caller.replicas.every[0].breaker
        breaker.fail(monotonic() - 60, 0.5, at_once=True)
        probe = asyncio.create_task(caller.text())
        while not server.requests:
            await asyncio.sleep(0.001)
        with pytest.raises(CallUnavailable):
            await caller.text()
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert await caller.text() == "ok"


@pytest.mark.parametrize("status", [500, 503, 504, 404])
@on_loop
async def test_answers_are_not_held_against_the_replica(status: int) -> None:
    response = problem(status, "retry-after: 9")
    async with raw_server(answers(*[response] * 20)) as server, calling(server) as caller:
        assert [(await caller.send("POST")).status for _ in range(20)] == [status] * 20


@on_loop
async def test_504_just_after_the_deadline_is_not_held_against_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget ends in the callee's queue at the moment in which the caller gives up."""
    monkeypatch.setattr("tinysvc.client.replica.RESPONSE_GRACE", 0.7)

    async def answers_just_too_late(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.06)
        peer.send(problem(504, type="urn:tinysvc:budget-exhausted"))
        await peer.closed()

    async with raw_server(answers_just_too_late) as server, calling(server) as caller:
        calls = [caller.send(within=0.05) for _ in range(2 * MAX_FAILURES)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(each, CallTimeout) for each in ended)
        replica = caller.replicas.every[0]
        while replica.in_flight:
            await asyncio.sleep(0.01)
        assert replica.breaker.failures == 0
        while server.open:
            await asyncio.sleep(0.01)


@on_loop
async def test_resets_open_the_breaker(caplog: pytest.LogCaptureFixture) -> None:
    async with raw_server(resets_unanswered) as server, calling(server) as caller:
        for _ in range(MAX_FAILURES):
            with pytest.raises(CallFailed):
                await caller.send("POST")
        caller.replicas.every[0].breaker.until += 60
        with pytest.raises(CallUnavailable):
            await caller.send("POST")
        assert len(server.requests) == MAX_FAILURES
    assert len(logged(caplog)) == 1


@on_loop
async def test_slow_replica_gets_fewer_calls() -> None:
    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.1)
            peer.send(OK)

    async with raw_server(slow) as one, raw_server(good) as other, calling(one, other) as caller:

        async def calls() -> None:
            for _ in range(25):
                await caller.text()

        await asyncio.gather(*[calls() for _ in range(8)])
        assert len(one.requests) < len(other.requests) / 3


@on_loop
async def test_status_line() -> None:
    async with raw_server(good) as server, calling(server) as caller:
        await caller.text()
        shown = repr(caller.replicas.every[0])
        assert shown == f"<Replica {server.address}, 0 calls, 1 connections>"
