"""replies.py: responses as values, and streams as items. A short result is never taken for a whole one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc import ConfigurationError, Event, Response
from tinysvc.binding.replies import ReplyReader, UnreadableReply
from tinysvc.core.headers import Headers
from tinysvc.core.responses import EVENTS, JSON, MESSAGEPACK, NDJSON, OCTETS, TEXT


@dataclass
class Point:
    x: int
    y: int = 0


def reader(annotation: Any) -> ReplyReader:
    def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    return ReplyReader(handler)


def value(annotation: Any, content: bytes, content_type: str = JSON, status: int = 200) -> Any:
    return reader(annotation).value(status, content_type, content, Headers())


def test_unknown_fields_are_ignored() -> None:
    assert value(Point, b'{"x":1,"z":2}') == Point(1)


@pytest.mark.parametrize(
    ("annotation", "content", "says"),
    [
        (Point, b'{"y":1}', "missing required field `x`"),
        (list[Point], b'[{"x":1},{"x":"a"}]', r"\$\[1\]\.x"),
        (Point, b'{"x":1', "truncated"),
        (bytes, b"{}", "a JSON document came, and bytes was expected"),
    ],
)
def test_wrong_document_is_named_with_its_place(annotation: Any, content: bytes, says: str) -> None:
    with pytest.raises(UnreadableReply, match=says):
        value(annotation, content)


def test_content_type_decides_where_the_annotation_says_nothing() -> None:
    for annotation in (Any, object):
        assert value(annotation, b'{"a":[1]}') == {"a": [1]}
        assert value(annotation, "ü".encode(), TEXT) == "ü"
        assert value(annotation, b"\0", OCTETS) == b"\0"
        assert value(annotation, b"", "", 204) is None
        assert value(annotation, msgspec.msgpack.encode([1]), MESSAGEPACK) == [1]


def test_raw_kinds() -> None:
    assert value(bytearray, b"ab", OCTETS) == bytearray(b"ab")
    assert bytes(value(memoryview, b"ab", OCTETS)) == b"ab"
    assert value(str, b"\xe9", "text/plain; charset=latin-1") == "é"
    assert value(Point | None, b"", "", 204) is None
    assert value(Point, msgspec.msgpack.encode({"x": 1}), MESSAGEPACK) == Point(1)
    for annotation, content, content_type in (
        (Point, b"text", TEXT),
        (str, b"\0", OCTETS),
        (Point, b"", ""),
        (str, b"\xff", TEXT),
    ):
        with pytest.raises(UnreadableReply):
            value(annotation, content, content_type)


def test_response_or_value() -> None:
    found = reader(Response | Point)
    headers = Headers([(b"x-a", b"1"), (b"date", b"now"), (b"set-cookie", b"a"), (b"set-cookie", b"b")])
    assert found.value(200, JSON, b'{"x":1}', headers) == Point(1)
    response = found.value(200, "image/png", b"png", headers)
    assert (response.content, response.content_type) == (b"png", "image/png")
    assert response.headers == [("x-a", "1"), ("set-cookie", "a"), ("set-cookie", "b")]
    assert isinstance(reader(Response).value(200, JSON, b"{}", headers), Response)


def test_type_that_no_response_holds_is_refused_at_once() -> None:
    class Own: ...

    with pytest.raises(ConfigurationError, match=r"handler .*its result, .*Own.* cannot be read from a response"):
        reader(Own)


# Streams


def items(annotation: Any, content_type: str, *pieces: bytes) -> list[Any]:
    async def given_pieces() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[Any]:
        return [item async for item in reader(annotation).items(content_type, given_pieces())]

    return asyncio.run(collect())


@given(st.data())
def test_items_do_not_depend_on_the_cuts(data: st.DataObject) -> None:
    points = data.draw(st.lists(st.builds(Point, st.integers(0, 9999)), max_size=5))
    texts = data.draw(st.lists(st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8")), max_size=5))
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in points)
    events = b": beat\n\n" + b"".join(Event(text, event="e").encode() for text in texts)
    for annotation, content_type, whole, expected in (
        (AsyncIterator[Point], NDJSON, lines, points),
        (AsyncIterator[Event], EVENTS, events, [Event(text, event="e") for text in texts]),
        (Iterator[str], EVENTS, events.replace(b"\n", b"\r\n"), texts),
    ):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert items(annotation, content_type, *pieces) == expected


def test_texts_are_decoded_across_pieces() -> None:
    assert "".join(items(Iterator[str], TEXT, b"\xe2\x98", b"\x83!")) == "☃!"
    assert items(Iterator[bytes], OCTETS, b"ab", b"c") == [b"ab", b"c"]
    assert items(Iterator[dict[str, int]], EVENTS, b'data: {"a":1}\n\n') == [{"a": 1}]


def test_stream_without_its_end_is_refused() -> None:
    with pytest.raises(UnreadableReply, match="in the middle of a line"):
        items(Iterator[Point], NDJSON, b'{"x":1}\n{"x"')
    with pytest.raises(UnreadableReply, match="a JSON document came, and a stream was expected"):
        items(Iterator[Point], JSON, b"{}")
    with pytest.raises(UnreadableReply, match="the text cannot be decoded"):
        items(Iterator[str], TEXT, b"\xe2\x98")
    assert items(Iterator[Event], EVENTS, b"data: a\n\ndata: b\n") == [Event("a")]


@pytest.mark.parametrize(
    ("annotation", "content_type", "says"),
    [
        (Iterator[Point], "text/html", "text/html came, and a stream of Point was expected"),
        (Iterator[Point], OCTETS, "octet-stream came, and a stream of Point was expected"),
        (Iterator[Point], "", "bytes came, and a stream of Point was expected"),
        (Iterator[str], OCTETS, "a stream of str was expected"),
        (Iterator[bytes], TEXT, "a stream of bytes was expected"),
    ],
)
def test_stream_of_another_kind_is_refused(annotation: Any, content_type: str, says: str) -> None:
    with pytest.raises(UnreadableReply, match=says):
        items(annotation, content_type, b"<html>")


@pytest.mark.parametrize("annotation", [None, str, Any, Point, bytes])
def test_redirect_is_no_result(annotation: Any) -> None:
    with pytest.raises(UnreadableReply, match="301 is no result, and redirects are not followed"):
        value(annotation, b"moved", TEXT, 301)


def test_redirect_of_a_handler_is_its_response() -> None:
    assert value(Response, b"", "", 301).status == 301


def test_event_is_bounded_by_its_lines_together() -> None:
    line = b"data: " + b"x" * 999_000 + b"\n"
    assert items(Iterator[str], EVENTS, *[line, b"\n"] * 20) == ["x" * 999_000] * 20
    with pytest.raises(UnreadableReply, match="one item of the stream is longer"):
        items(Iterator[str], EVENTS, *[line] * 20)


def test_retry_of_an_event_that_is_too_long_is_ignored() -> None:
    (event,) = items(Iterator[Event], EVENTS, b"retry: " + b"9" * 5000 + b"\ndata: a\n\n")
    assert event.retry is None


def test_part_of_a_result_is_no_result() -> None:
    with pytest.raises(UnreadableReply, match="206 came, a part of the result"):
        value(bytes, b"half", OCTETS, 206)


def test_compressed_result_is_refused() -> None:
    headers = Headers([(b"content-encoding", b"gzip")])
    with pytest.raises(UnreadableReply, match="content-encoding gzip came, which was not asked for"):
        reader(bytes).value(200, OCTETS, b"\x1f\x8b", headers)
    assert reader(Response).value(200, OCTETS, b"\x1f\x8b", headers).content == b"\x1f\x8b"


def test_document_is_no_result_of_a_handler_that_returns_none() -> None:
    assert value(None, b"null") is None
    with pytest.raises(UnreadableReply, match="a JSON document came, and NoneType was expected"):
        value(None, b'{"a":1}')
