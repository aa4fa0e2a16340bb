"""The codec of a method."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, PositiveInt

from rpc_cases import codec_of, schema_of
from tinysvc import ApiKey, Batch, Header, HTTPError, Response, cpu_route, io_route
from tinysvc.binding.replies import UnreadableReply
from tinysvc.core.errors import UnencodableResult
from tinysvc.grpc.codec import Codec
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.message_errors import BadMessage


@dataclass
class Line:
    sku: str
    count: Annotated[int, msgspec.Meta(ge=1)]


@cpu_route("/buy/{shop}", methods=["POST"])
def buy(shop: str, lines: list[Line], agent: Annotated[str, Header()], limit: int = 10) -> list[Line]:
    return lines[:limit]


@cpu_route("/score", methods=["POST"], batch=Batch())
def score(items: list[list[float]]) -> list[float]:
    return [sum(each) for each in items]


@io_route("/count")
async def count(start: int) -> AsyncIterator[Line]:
    yield Line("a", start)


@io_route("/nothing")
async def nothing() -> None: ...


@io_route("/secret")
async def secret(key: Annotated[str, ApiKey("key", "query")]) -> str:
    return key


def test_path_query_and_body_are_fields_and_headers_are_not() -> None:
    codec = schema_of(buy).methods[0].codec
    assert codec.parameters == ("shop", "lines", "limit")
    data = codec.encode_arguments({"shop": "x", "lines": [Line("a", 2)], "agent": "me"})
    assert codec.decode_arguments(data) == {"shop": "x", "lines": [Line("a", 2)], "limit": 10}
    assert codec.decode_arguments(memoryview(data)) == codec.decode_arguments(data)


def test_pickled_codec_reads_the_same_messages_without_grpcio() -> None:
    codec = schema_of(score).methods[0].codec
    data = codec.encode_arguments({"items": [1.0, 2.0]})
    code = (
        "import pickle, sys; codec = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "assert codec.decode_arguments(bytes.fromhex(sys.argv[2])) == {'items': [1.0, 2.0]}; "
        "assert codec.decode_result(codec.encode_result(3.0)) == 3.0; assert 'grpc' not in sys.modules"
    )
    command = [sys.executable, "-c", code, pickle.dumps(codec).hex(), data.hex()]
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(folder.parent / "support")}
    subprocess.run(command, check=True, cwd=folder, env=environment)


def test_every_fault_is_named_with_its_place() -> None:
    codec = schema_of(buy).methods[0].codec
    data = codec.encode_arguments({"shop": "x", "lines": [Line("a", 0), Line("b", 1), Line("c", -1)]})
    with pytest.raises(BadMessage) as failed:
        codec.decode_arguments(data)
    assert failed.value.faults == [
        ("lines[0].count", "Expected `int` >= 1"),
        ("lines[2].count", "Expected `int` >= 1"),
    ]


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(BadMessage, match="no message of this method"):
        schema_of(buy).methods[0].codec.decode_arguments(b"\xff\xff")


def test_clients_may_be_newer_or_older() -> None:
    @dataclass
    class Older:
        id: int

    @dataclass
    class Newer:
        id: int
        note: str = "none"

    older, newer = codec_of(Older), codec_of(Newer)
    assert older.decode_arguments(newer.encode_arguments({"value": Newer(1, "x")})) == {"value": Older(1)}
    assert newer.decode_arguments(older.encode_arguments({"value": Older(1)})) == {"value": Newer(1, "none")}


class Model(BaseModel):
    count: PositiveInt
    data: bytes = b""
    lines: list[Line] = []


def test_faults_of_a_pydantic_model_have_their_places() -> None:
    codec = codec_of(Model)
    message = codec.encode_arguments({"value": {"count": -1, "lines": [{"sku": "a", "count": 0}]}})
    with pytest.raises(BadMessage) as failed:
        codec.decode_arguments(message)
    assert [place for place, _ in failed.value.faults] == ["value.count"]
    with pytest.raises(BadMessage, match="bytes of a pydantic model are UTF-8"):
        codec.decode_arguments(codec.encode_arguments({"value": {"count": 1, "data": b"\xff"}}))


def test_argument_that_does_not_fit_is_named() -> None:
    codec = schema_of(buy).methods[0].codec
    with pytest.raises(UnencodableResult, match=r"lines\[1\].count of buy cannot be sent over gRPC: .* 64 bits"):
        codec.encode_arguments({"shop": "x", "lines": [Line("a", 1), Line("b", 2**63)]})
    with pytest.raises(UnencodableResult, match=r"lines\[0\].sku of buy .* is missing"):
        codec.encode_arguments({"shop": "x", "lines": [{"count": 1}]})


class Steps(NamedTuple):
    first: int
    second: int = 2
    third: int = 3


def test_absent_position_of_an_array_takes_its_default() -> None:
    codec = codec_of(Steps)
    kind = message_class(codec.parts.files, "shop.HandleRequest")
    request = kind(value={"first": 1, "third": 7}).SerializeToString()
    assert codec.decode_arguments(request) == {"value": Steps(1, 2, 7)}


def test_stream_of_requests() -> None:
    @io_route("/sum", methods=["POST"])
    async def total(lines: AsyncIterator[Line], agent: Annotated[str, Header()] = "") -> int:
        return sum([each.count async for each in lines])

    (method,) = schema_of(total).methods
    assert (method.client_streams, method.codec.stream_parameter) == (True, "lines")
    assert method.codec.decode_request_item(method.codec.encode_request_item(Line("a", 1))) == Line("a", 1)
    with pytest.raises(BadMessage, match="Expected `int` >= 1"):
        method.codec.decode_request_item(method.codec.encode_request_item(Line("a", 0)))


def test_missing_key_is_401() -> None:
    codec = schema_of(secret).methods[0].codec
    with pytest.raises(HTTPError) as failed:
        codec.decode_arguments(b"")
    assert failed.value.status == 401
    assert codec.decode_arguments(codec.encode_arguments({"key": "x"})) == {"key": "x"}


def test_items_of_a_stream_and_no_result() -> None:
    streamed, empty = schema_of(count, nothing).methods
    assert (streamed.server_streams, empty.server_streams) == (True, False)
    assert streamed.codec.decode_item(streamed.codec.encode_item(Line("a", 1))) == Line("a", 1)
    assert empty.codec.encode_result(None) == b""
    assert empty.codec.decode_result(b"") is None
    assert empty.codec.decode_arguments(b"") == empty.codec.decode_arguments(b"\x08\x01") == {}
    with pytest.raises(BadMessage, match="no message of this method"):
        empty.codec.decode_arguments(b"\xff")
    with pytest.raises(UnencodableResult, match="its annotation says None"):
        empty.codec.encode_result(7)


def test_result_that_does_not_fit_the_annotation() -> None:
    codec = codec_of(Line)
    with pytest.raises(UnencodableResult, match="only HTTP has"):
        codec.encode_result(Response("x"))
    with pytest.raises(UnreadableReply, match="Expected `int` >= 1"):
        codec.decode_result(codec.encode_result({"sku": "a", "count": 0}))
    with pytest.raises(UnreadableReply, match="no message of this method"):
        codec.decode_result(b"\xff")
    with pytest.raises(UnreadableReply, match="no message of this method"):
        codec_of(int).decode_result(b"\xff")
    with pytest.raises(UnreadableReply, match="value: 7 is no value of Kind"):
        codec_of(Kind).decode_result(b"\x08\x07")


def test_lists_inside_each_other_beyond_the_loops_of_a_function() -> None:
    annotation, value = list[int], [1]
    for _ in range(25):
        annotation, value = list[annotation], [value]  # type: ignore[valid-type, list-item]
    codec = codec_of(annotation)
    assert codec.decode_arguments(codec.encode_arguments({"value": value})) == {"value": value}
    assert codec.decode_result(codec.encode_result(value)) == value


@dataclass
class Tree:
    child: Tree | None = None


def test_value_that_is_nested_too_deeply() -> None:
    codec = codec_of(Tree)
    value = Tree()
    for _ in range(90):
        value = Tree(value)
    assert codec.decode_result(codec.encode_result(value)) == value
    for _ in range(20):
        value = Tree(value)
    with pytest.raises(UnencodableResult, match="deeper than 100 messages"):
        codec.encode_result(value)
    message = b""
    for _ in range(110):
        size = len(message)
        message = b"\x0a" + (bytes([size]) if size < 128 else bytes([size % 128 + 128, size // 128])) + message
    with pytest.raises(BadMessage, match="no message of this method"):
        codec.decode_arguments(message)
    value.child = value
    with pytest.raises(UnencodableResult, match="contains itself"):
        codec.encode_result(value)
    anything = 1
    for _ in range(60):
        anything = [anything]  # type: ignore[assignment]
    with pytest.raises(UnencodableResult, match="deeper than 100 messages"):
        codec_of(Any).encode_result(anything)


class Kind(Enum):
    A = "a"


@dataclass
class Fuzzed:
    id: int
    at: datetime
    took: timedelta
    kind: Kind
    lines: list[Line]
    tree: Tree
    either: int | str | None
    anything: Any
    counts: dict[str, int]
    names: list[list[str]]


FUZZED = Fuzzed(
    7,
    datetime(2026, 1, 1, tzinfo=UTC),
    timedelta(seconds=-1),
    Kind.A,
    [Line("a", 1)],
    Tree(Tree()),
    "x",
    {"a": [1, None]},
    {"a": 1},
    [["a"], []],
)


@settings(max_examples=int(os.environ.get("GRPC_EXAMPLES", "60")), deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_bytes_of_a_stranger_are_arguments_or_refused(data: st.DataObject) -> None:
    codec = _fuzzed()
    message = bytearray(codec.encode_arguments({"value": FUZZED}))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(message) - 1))
        message[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        arguments = codec.decode_arguments(bytes(message))
    except BadMessage:
        return
    assert isinstance(arguments["value"], Fuzzed)


@cache
def _fuzzed() -> Codec:
    return codec_of(Fuzzed)
