"""wire/chunked.py without a connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_ends import PLACES, chunked, cut
from tinysvc.core.errors import ProtocolError
from tinysvc.core.settings import Settings
from tinysvc.wire.chunked import CHUNKS_AT_ONCE, ChunkedDecoder


def decoded(pieces: Iterable[bytes], **options: Any) -> tuple[bytes, bytes | None]:
    decoder = ChunkedDecoder(Settings(**options))
    return b"".join([decoder.feed(piece) for piece in pieces]), decoder.rest


@settings(derandomize=True, deadline=None)
@given(body=st.lists(st.binary(min_size=1, max_size=40)), rest=st.binary(max_size=20), places=PLACES)
def test_segmentation_does_not_change_the_body(body: list[bytes], rest: bytes, places: list[int]) -> None:
    joined, behind = b"", b""
    decoder = ChunkedDecoder(Settings())
    for piece in cut(chunked(*body) + rest, places):
        if decoder.rest is None:
            joined += decoder.feed(piece)
        else:
            behind += piece
    assert joined == b"".join(body)
    assert decoder.rest is not None
    assert decoder.rest + behind == rest


def test_body_is_complete_after_its_trailers() -> None:
    assert decoded([b"1\r\na\r\n0\r\nX: a\r\n"]) == (b"a", None)
    assert decoded([b"1\r\na\r\n0\r\nX: a\r\n", b"\r\nrest"]) == (b"a", b"rest")


def test_many_chunks_are_parsed_in_several_turns() -> None:
    count = 3 * CHUNKS_AT_ONCE + 1
    for size in (1, 15, 16, 40):
        decoder = ChunkedDecoder(Settings())
        body = decoder.feed(chunked(*[b"a" * size] * count) + b"rest")
        turns = 1
        while decoder.has_more:
            body += decoder.feed(b"")
            turns += 1
        assert (body, decoder.rest) == (b"a" * size * count, b"rest")
        assert turns > 1


def test_small_chunks_count_against_the_limit() -> None:
    with pytest.raises(ProtocolError, match="longer than 5 bytes"):
        decoded([b"2\r\naa\r\n" * 3], max_body_size=5)
