"""results.py: return values and yielded items as responses."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest

from tinysvc.binding.binder import Binder
from tinysvc.binding.results import ChunkStream, begin_stream, encode_chunk, encode_iterator, encode_result
from tinysvc.core.errors import UnencodableResult
from tinysvc.core.responses import EVENTS, Response
from tinysvc.core.sse import Event
from tinysvc.pool.arena import BIG


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int = pydantic.Field(alias="theX")


RESULTS: list[tuple[Any, int, bytes, str | None]] = [
    (None, 204, b"", None),
    ("é", 200, "é".encode(), "text/plain; charset=utf-8"),
    (b"\x00", 200, b"\x00", "application/octet-stream"),
    (bytearray(b"\x00"), 200, b"\x00", "application/octet-stream"),
    (memoryview(b"ab")[::-1], 200, b"ba", "application/octet-stream"),
    (memoryview(b""), 200, b"", "application/octet-stream"),
    (Response(bytearray(b"a"), 201), 201, b"a", "application/octet-stream"),
    ({"a": [1, None]}, 200, b'{"a":[1,null]}', "application/json"),
    ([1], 200, b"[1]", "application/json"),
    (7, 200, b"7", "application/json"),
    (2**70, 200, b"1180591620717411303424", "application/json"),
    (
        {"é": {2: 2**70, "at": Point(-(2**64))}},
        200,
        b'{"\xc3\xa9":{"2":1180591620717411303424,"at":{"x":-18446744073709551616}}}',
        "application/json",
    ),
    (
        [2**70, math.nan, {1, 2}, Struct(2**65)],
        200,
        b'[1180591620717411303424,null,[1,2],{"x":36893488147419103232}]',
        "application/json",
    ),
    (
        {datetime.date(2026, 1, 2): 2**70, 2**65: None, True: 1.5},
        200,
        b'{"2026-01-02":1180591620717411303424,"36893488147419103232":null,"true":1.5}',
        "application/json",
    ),
    (True, 200, b"true", "application/json"),
    ({1: "a"}, 200, b'{"1":"a"}', "application/json"),
    (Point(1), 200, b'{"x":1}', "application/json"),
    (Struct(1), 200, b'{"x":1}', "application/json"),
    ([Struct(1), {2}], 200, b'[{"x":1},[2]]', "application/json"),
    ([Model(theX=1)], 200, b'[{"theX":1}]', "application/json"),
    (Colour.RED, 200, b'"red"', "application/json"),
    (uuid.UUID(int=1), 200, b'"00000000-0000-0000-0000-000000000001"', "application/json"),
    (datetime.date(2026, 1, 2), 200, b'"2026-01-02"', "application/json"),
    (np.array([1, 2]), 200, b"[1,2]", "application/json"),
    (np.arange(4).reshape(2, 2).T, 200, b"[[0,2],[1,3]]", "application/json"),
    ({"mean": np.float64(0.5)}, 200, b'{"mean":0.5}', "application/json"),
    (Response({"id": 1}, 201), 201, b'{"id":1}', "application/json"),
    (Response("<p>", content_type="text/html"), 200, b"<p>", "text/html"),
    (Response(status=202), 202, b"", None),
]


@pytest.mark.parametrize(("result", "status", "content", "content_type"), RESULTS)
def test_result_becomes_a_response(result: Any, status: int, content: bytes, content_type: str | None) -> None:
    response = encode_result(result)
    assert (response.status, response.content, response.content_type) == (status, content, content_type)


@pytest.mark.parametrize(
    "value", [object(), {"a": object()}, lambda: 1, [2**70, object()], [2**70, "\ud800"], "\ud800"]
)
def test_unencodable_result_is_named(value: Any) -> None:
    with pytest.raises(UnencodableResult):
        encode_result(value)


@pytest.mark.parametrize("item", ["a\ud800", Event("a\ud800"), {"a": "\ud800"}, Response("a\ud800")])
def test_lone_surrogate_is_refused_with_the_remedy(item: Any) -> None:
    with pytest.raises(UnencodableResult, match=r"surrogate pair.*errors='replace'"):
        encode_result(item) if isinstance(item, Response) else encode_chunk(item)


def test_streams() -> None:
    def items() -> Iterator[Any]:
        yield {"a": 1}
        yield Point(2)

    response = encode_result(items())
    assert list(encode_iterator(response)) == [b'{"a":1}\n', b'{"x":2}\n']
    assert response.content_type == "application/x-ndjson"
    assert encode_chunk("é") == ("é".encode(), "text/plain; charset=utf-8")
    assert encode_chunk(bytearray(b"x")) == (b"x", "application/octet-stream")


@pytest.mark.parametrize("big", [bytearray(BIG), np.zeros(BIG // 8).data], ids=["bytearray", "memoryview"])
def test_big_buffer_is_not_copied(big: Any) -> None:
    content = encode_result(big).content
    assert (type(content), content.obj is memoryview(big).obj) == (memoryview, True)
    assert len(content) == BIG  # in bytes


def empty() -> Iterator[Any]:
    yield from ()


def of_strings() -> Iterator[Any]:
    yield "a"
    yield {"b": Point(1)}


def of_events() -> Iterator[Any]:
    yield Event("a")
    yield {"b": Point(1)}


A, B = b"data: a\n\n", b'data: {"b":{"x":1}}\n\n'
STREAMS: list[tuple[Any, Any, bytes, str]] = [
    (Iterator[Event], empty, b"", EVENTS),
    (Generator[Event, None, None], of_strings, A + B, EVENTS),
    (Iterable[Event | str], of_strings, A + B, EVENTS),
    (AsyncIterator[Event], of_events, A + B, EVENTS),
    (Any, of_events, A + B, EVENTS),
    (Iterator, of_strings, b'a{"b":{"x":1}}\n', "text/plain; charset=utf-8"),
    (Iterator[Any], empty, b"", "application/octet-stream"),
    (Iterator[dict[str, int]], empty, b"", "application/x-ndjson"),
    (AsyncGenerator[Point, None], empty, b"", "application/x-ndjson"),
    (Iterator[str], empty, b"", "text/plain; charset=utf-8"),
    (Iterator[bytes], empty, b"", "application/octet-stream"),
    (Iterator[bytes | dict[str, int]], empty, b"", "application/octet-stream"),
    (dict, empty, b"", "application/octet-stream"),
]


@pytest.mark.parametrize(("annotation", "function", "content", "content_type"), STREAMS)
@pytest.mark.asyncio
async def test_content_type_of_a_stream(annotation: Any, function: Any, content: bytes, content_type: str) -> None:
    def annotated() -> Any: ...

    async def asynchronous() -> AsyncIterator[Any]:
        for item in function():
            yield item

    annotated.__annotations__["return"] = annotation
    stream_type = Binder(annotated).stream_type
    response = encode_result(function())
    assert b"".join(encode_iterator(response, stream_type)) == content
    other = await begin_stream(Response(), asynchronous(), stream_type)
    assert b"".join([chunk async for chunk in other.content]) == content
    headers = [("cache-control", "no-cache")] if content_type == EVENTS else []
    for each in (response, other):
        assert (each.content_type, each.headers) == (content_type, headers)


def test_stream_keeps_the_author_s_headers() -> None:
    response = Response(of_events(), headers={"cache-control": "no-store"}, content_type="text/event-stream")
    encode_iterator(encode_result(response))
    assert (response.content_type, response.headers) == ("text/event-stream", [("cache-control", "no-store")])


@pytest.mark.asyncio
async def test_asynchronous_stream_closes_its_generator() -> None:
    closed = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    stream = ChunkStream(items())
    assert await stream.begin() == "text/plain; charset=utf-8"
    assert not closed
    await stream.aclose()
    assert closed
    stream = ChunkStream(items())
    await stream.begin()
    assert [chunk async for chunk in stream] == [b"a", b"b"]
