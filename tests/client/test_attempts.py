"""attempts.py: which failure leads to another attempt. The rows of retries.py, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from http_ends import on_loop
from raw_servers import NOT_STARTED, OK, Peer, answers, calling, good, is_silent, problem, raw_server, resets_unanswered
from tinysvc.client import attempts as client_attempts
from tinysvc.client.address import Address, parse_address
from tinysvc.client.replica import Replica
from tinysvc.client.retries import MAX_ATTEMPTS
from tinysvc.core.call_errors import CallFailed, CallTimeout, CallUnavailable

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


def closed_address() -> Address:
    """An address without a listener."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return parse_address(f"http://127.0.0.1:{sock.getsockname()[1]}")


# Before anything is sent


@on_loop
async def test_used_up_budget_sends_nothing() -> None:
    async with raw_server(good) as server, calling(server) as caller:
        for left in (0.0, -1.0):
            with pytest.raises(CallTimeout, match="before it was sent"):
                await caller.send(within=left)
        assert server.connections == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
@on_loop
async def test_refused_connection_goes_to_the_next_replica(method: str) -> None:
    async with raw_server(good) as server, calling(closed_address(), closed_address(), server) as caller:
        for _ in range(50):
            incoming = await caller.send(method)
            assert incoming.replica == str(server.address)
            assert incoming.attempts == 1
            await incoming.body(10)
        assert len(server.requests) == 50


@on_loop
async def test_all_refused_is_503_at_once() -> None:
    async with calling(closed_address(), closed_address()) as caller:
        for _ in range(3):
            begin = monotonic()
            with pytest.raises(CallUnavailable) as raised:
                await caller.send("POST")
            assert monotonic() - begin < 1.0
            assert raised.value.retry_after >= 1
            assert raised.value.attempts == 0


# The answer does not begin


@on_loop
async def test_callee_that_dies_unanswered_is_retried_if_idempotent() -> None:
    async with raw_server(resets_unanswered) as bad, raw_server(good) as server, calling(bad, server) as caller:
        for _ in range(20):
            assert await caller.text("POST", b"x", idempotent=True) == "ok"
        assert bad.requests


@on_loop
async def test_callee_that_dies_unanswered_is_an_error_else() -> None:
    async with raw_server(resets_unanswered) as bad, calling(bad) as caller:
        with pytest.raises(CallFailed, match="without a response") as raised:
            await caller.send("POST", b"x")
        assert (raised.value.status, raised.value.attempts, raised.value.service) == (502, 1, "callee")
        assert raised.value.replica == str(bad.address)
        assert len(bad.requests) == 1


@on_loop
async def test_only_replica_is_tried_again() -> None:
    async with raw_server(resets_unanswered, good) as server, calling(server) as caller:
        incoming = await caller.send("GET")
        assert (incoming.status, incoming.attempts) == (200, 2)
        await incoming.aclose()


@on_loop
async def test_three_attempts_at_most() -> None:
    async with raw_server(resets_unanswered) as bad, calling(bad) as caller:
        with pytest.raises(CallFailed) as raised:
            await caller.send("GET")
        assert raised.value.attempts == len(bad.requests) == MAX_ATTEMPTS


@pytest.mark.parametrize("then", ["close", "reset"])
@on_loop
async def test_idle_race_is_repeated_on_a_new_connection_if_idempotent(then: str) -> None:
    async def races(peer: Peer) -> None:
        await peer.request()
        peer.send(OK)
        await peer.request()
        if then == "reset":
            peer.reset()

    async with raw_server(races, good) as server, calling(server) as caller:
        assert await caller.text("GET") == "ok"
        incoming = await caller.send("GET")
        assert (incoming.status, incoming.attempts) == (200, 2)
        await incoming.aclose()
        assert server.connections == 2
        assert caller.replicas.every[0].breaker.failures == 0  # it is not blamed


@on_loop
async def test_idle_race_is_an_error_else() -> None:
    async def races(peer: Peer) -> None:
        await peer.request()
        peer.send(OK)
        await peer.request()

    async with raw_server(races, good) as server, calling(server) as caller:
        assert await caller.text("POST") == "ok"
        with pytest.raises(CallFailed, match="reused connection"):
            await caller.send("POST")
        assert len(server.requests) == 2


@on_loop
async def test_connection_that_closed_while_idle_loses_no_call() -> None:
    """Also if the caller's event loop was blocked when it closed."""
    async with raw_server(answers(OK, then="close"), answers(OK, then="close"), good) as server:
        async with calling(server) as caller:
            assert await caller.text("POST") == "ok"
            await asyncio.sleep(0.05)
            assert await caller.text("POST") == "ok"
        assert server.connections == 2


# A 503


@pytest.mark.parametrize("method", ["GET", "POST"])
@on_loop
async def test_job_that_was_not_started_goes_elsewhere(method: str) -> None:
    refuses = answers(*[NOT_STARTED] * 50)
    async with raw_server(refuses) as busy, raw_server(good) as server, calling(busy, server) as caller:
        while len(busy.requests) < 5:
            assert (await caller.send(method)).status == 200
        assert caller.replicas.every[0].breaker.failures == 0


@pytest.mark.parametrize(
    "response",
    [
        problem(503, "retry-after: 0"),
        problem(503, "retry-after: 0", started=True),
        problem(503, "retry-after: 0", started=None),
        b"HTTP/1.1 503 X\r\ncontent-type: text/plain\r\ncontent-length: 17\r\n\r\n{'started':false}",
        b"HTTP/1.1 503 X\r\ncontent-type: application/problem+json\r\ncontent-length: 2\r\n\r\n{]",
        b"HTTP/1.1 503 X\r\ncontent-type: application/problem+json\r\ncontent-length: 4\r\n\r\nnull",
        problem(503, "retry-after: 0", started=False, padding="x" * 20_000),
        *[problem(status, started=False) for status in (500, 502, 504, 400, 404, 409, 429)],
    ],
)
@on_loop
async def test_other_answers_are_not_repeated(response: bytes) -> None:
    async with raw_server(answers(*[response] * 9)) as one, raw_server(answers(*[response] * 9)) as other:
        async with calling(one, other) as caller:
            incoming = await caller.send("GET")
            assert incoming.status == int(response[9:12])
            assert (await incoming.body(30_000)) == response.partition(b"\r\n\r\n")[2]
        assert len(one.requests) + len(other.requests) == 1


@on_loop
async def test_retry_after_beyond_the_budget_gives_up_now() -> None:
    async with raw_server(answers(*[NOT_STARTED] * 5)) as busy, calling(busy) as caller:
        for within in (0.9, None):
            begin = monotonic()
            incoming = await caller.send("GET", within=within)
            assert (incoming.status, monotonic() - begin < 0.8) == (503, True)
            assert b"queue-full" in await incoming.body(1000)
        assert len(busy.requests) == 2


@on_loop
async def test_retry_after_within_the_budget_is_waited_for() -> None:
    async with raw_server(answers(NOT_STARTED, OK)) as server, calling(server) as caller:
        begin = monotonic()
        assert await caller.text("POST", within=5.0) == "ok"
        assert monotonic() - begin > 0.95
        assert len(server.requests) == 2


# The volume of retries


@on_loop
async def test_retry_budget_bounds_all_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.client.breaker.MAX_FAILURES", 10_000)
    async with raw_server(resets_unanswered) as bad, calling(bad) as caller:
        for _ in range(100):
            with pytest.raises(CallFailed):
                await caller.send("GET")
        assert 100 < len(bad.requests) <= 100 + 10 + 10 + 2


@on_loop
async def test_only_the_layer_next_to_the_failure_repeats() -> None:
    """A calls B, B calls C. B's own failure says nothing about `started`, so A does not repeat."""
    error = CallUnavailable("x", service="C")
    response = problem(error.status, "retry-after: 0", **error.problem())
    async with raw_server(answers(*[response] * 9)) as b, raw_server(answers(*[response] * 9)) as other:
        async with calling(b, other) as caller:
            assert (await caller.send("GET")).status == 503
        assert len(b.requests) + len(other.requests) == 1


# The budget ends


@on_loop
async def test_budget_ends_by_the_own_clock() -> None:
    async with raw_server(is_silent) as server, calling(server) as caller:
        begin = monotonic()
        with pytest.raises(CallTimeout, match="no response has come") as raised:
            await caller.send("GET", within=0.1)
        assert 0.09 < monotonic() - begin < 1.0
        assert raised.value.attempts == 1
        assert b"request-timeout: " in server.requests[0]


@on_loop
async def test_timer_that_rings_a_moment_early_is_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rings_early(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(Replica, "exchange", rings_early)
    async with raw_server(good) as server, calling(server) as caller:
        with pytest.raises(CallTimeout):
            await caller.send(within=0.005)
        with pytest.raises(TimeoutError) as raised:
            await caller.send(within=30.0)
        assert type(raised.value) is TimeoutError


@on_loop
async def test_one_deadline_over_all_attempts() -> None:
    async def dies_slowly(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.06)
        peer.reset()

    async with raw_server(dies_slowly, is_silent) as server, calling(server) as caller:
        begin = monotonic()
        with pytest.raises(CallTimeout) as raised:
            await caller.send("GET", within=0.2)
        assert 0.19 < monotonic() - begin < 1.0
        assert raised.value.attempts == 2
        left = [int(each.partition(b"request-timeout: ")[2].partition(b"ms")[0]) for each in server.requests]
        assert left[1] <= left[0] - 59


@on_loop
async def test_timeout_of_the_authors_iterator_is_not_that_of_the_call() -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield b"x"
        raise TimeoutError("of the author")

    async with raw_server(is_silent) as server, calling(server) as caller:
        with pytest.raises(TimeoutError, match="of the author") as raised:
            await caller.send("POST", fails)
        assert not isinstance(raised.value, CallTimeout)


@on_loop
async def test_retry_budget_ends_the_search_for_another_replica() -> None:
    refuses = answers(*[NOT_STARTED] * 99)
    async with raw_server(refuses) as one, raw_server(refuses) as other, calling(one, other) as caller:
        for _ in range(30):
            assert (await caller.send("GET", within=0.5)).status == 503
        assert 30 < len(one.requests) + len(other.requests) <= 30 + 3 + 10


def test_problem_documents_are_read_up_to_a_limit() -> None:
    assert client_attempts.MAX_PROBLEM < 20_000


@pytest.mark.parametrize("hedge", [None, 0.01])
@on_loop
async def test_body_that_cannot_begin_anew_is_sent_once(hedge: float | None) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"only once"

    async with raw_server(answers(NOT_STARTED)) as full, raw_server(good) as server, calling(full, server) as caller:
        while not full.requests:
            body = pieces()
            incoming = await caller.send("PUT", lambda body=body: body, idempotent=True, hedge=hedge, can_repeat=False)
            await incoming.body(1000)
            assert incoming.attempts == 1
            assert all(b"only once" in each for each in server.requests)
        assert incoming.status == 503


@on_loop
async def test_retry_after_that_is_no_number_is_endless() -> None:
    response = NOT_STARTED.replace(b"retry-after: 1", b"retry-after: \xb2")
    async with raw_server(answers(response)) as server, calling(server) as caller:
        assert (await caller.send("POST", b"x")).status == 503
