"""core/requests.py: the attributes of a Request, and how its body is read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tinysvc.core.headers import Headers
from tinysvc.core.requests import MAX_REQUEST_ID, Peer, Request


def test_request_has_defaults() -> None:
    request = Request("GET", "/a%2Fb%20c")
    assert (request.raw_path, request.path) == ("/a%2Fb%20c", "/a/b c")
    assert (request.client, request.server, request.scheme) == (None, None, "http")
    assert dict(request.headers) == {}
    assert request.query == {}
    assert request.path_params is None
    assert asyncio.run(request.body()) == b""
    assert repr(request) == "<Request GET /a%2Fb%20c>"


def test_request_knows_both_ends_of_its_connection() -> None:
    request = Request("GET", "/", peer=Peer(("c", 1), ("s", 2), "https"))
    assert (request.client, request.server, request.scheme) == (("c", 1), ("s", 2), "https")


async def pieces() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


@pytest.mark.parametrize("body", [lambda: b"ab", pieces])
def test_body_is_read_repeatedly_or_streamed(body: Callable[[], Any]) -> None:
    async def whole() -> tuple[bytes, bytes]:
        request = Request("POST", "/", body=body())
        return await request.body(), await request.body()

    async def streamed() -> list[bytes]:
        return [piece async for piece in Request("POST", "/", body=body()).stream()]

    assert asyncio.run(whole()) == (b"ab", b"ab")
    assert b"".join(asyncio.run(streamed())) == b"ab"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["abc-1.2"], "abc-1.2"),
        (["x" * MAX_REQUEST_ID], "x" * MAX_REQUEST_ID),
        (["x" * (MAX_REQUEST_ID + 1)], None),
        (["two words"], None),
        (["a", "b"], "a"),
        ([""], None),
        ([], None),
    ],
)
def test_request_id_of_the_client_is_used_if_it_is_a_token(lines: list[str], expected: str | None) -> None:
    request = Request("GET", "/", headers=Headers([(b"x-request-id", line.encode()) for line in lines]))
    assert request.id == request.id
    if expected is None:
        other = Request("GET", "/")
        assert re.fullmatch(r"[0-9a-f]{12}-\d+", request.id)
        assert request.id != other.id
    else:
        assert request.id == expected


def test_request_takes_an_id() -> None:
    assert Request("GET", "/", headers=Headers([(b"x-request-id", b"a")]), id="b").id == "b"


def test_body_in_a_memoryview_is_returned_as_bytes() -> None:
    async def both() -> tuple[bytes, list[bytes]]:
        request = Request("POST", "/", body=memoryview(b"ab"))
        return await request.body(), [piece async for piece in request.stream()]

    assert asyncio.run(both()) == (b"ab", [b"ab"])
    assert Request("POST", "/", body=memoryview(b"ab")).has_arrived
    assert Request("POST", "/", body=b"").has_arrived
    assert not Request("POST", "/", body=pieces()).has_arrived


def test_empty_body_has_no_pieces() -> None:
    async def streamed() -> list[bytes]:
        return [piece async for piece in Request("POST", "/").stream()]

    assert asyncio.run(streamed()) == []
