"""messages.py: the body of a response, as its reader sees it."""

from __future__ import annotations

import pytest

from http_ends import on_loop
from tinysvc.client.messages import Incoming
from tinysvc.core.call_errors import CallFailed
from tinysvc.core.headers import Headers


class Source:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.closed = 0

    async def receive_piece(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.closed += 1


def incoming(content: bytes | None, source: Source | None = None) -> Incoming:
    return Incoming(200, Headers(), "http://a", content, source)


@on_loop
async def test_whole_body() -> None:
    whole = incoming(b"abc")
    assert [await whole.body(3), [piece async for piece in whole], await whole.body(3)] == [b"abc", [b"abc"], b"abc"]
    assert [piece async for piece in incoming(b"")] == []
    await whole.aclose()


@on_loop
async def test_body_in_pieces() -> None:
    source = Source(b"a", b"bc")
    assert [piece async for piece in incoming(None, source)] == [b"a", b"bc"]
    assert source.closed == 0
    read = incoming(None, Source(b"a", b"bc"))
    assert (await read.body(3), await read.body(3), read.content) == (b"abc", b"abc", b"abc")


@pytest.mark.parametrize("content", [b"abcd", None])
@on_loop
async def test_longer_body_is_refused(content: bytes | None) -> None:
    source = Source(b"ab", b"cd", b"ef")
    with pytest.raises(CallFailed, match="longer than 3 bytes") as raised:
        await incoming(content, None if content else source).body(3)
    assert (raised.value.answered, raised.value.replica) == (200, "http://a")
    assert content or (source.closed == 1 and source.pieces == [b"ef"])


@on_loop
async def test_rest_is_discarded_once() -> None:
    source = Source(b"ab", b"cd")
    response = incoming(None, source)
    async for _ in response:
        break
    await response.aclose()
    await response.aclose()
    assert source.closed == 1
