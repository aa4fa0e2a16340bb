"""One type of message: bytes, plain values and fields."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from google.protobuf.message import DecodeError

from rpc_cases import codec_of
from tinysvc.grpc.message_type import MessageType
from tinysvc.grpc.plain_writers import Unwritable


@dataclass
class Line:
    sku: str
    counts: list[int]


def type_of(annotation: object) -> MessageType:
    parts = codec_of(annotation).parts
    return MessageType(parts.request, parts.files, parts.package)


def test_plain_value_comes_back_from_its_bytes() -> None:
    lines, plain = type_of(Line), {"value": {"sku": "a", "counts": [1, 2]}}
    data = lines.bytes_of(plain)
    assert lines.read_plain(lines.parse(data)) == plain
    assert lines.bytes_with(plain) == data
    with pytest.raises(DecodeError):
        lines.parse(data[:-1])


def test_place_of_a_value_that_protobuf_refuses_is_named() -> None:
    lines, plain = type_of(Line), {"value": {"sku": "a", "counts": [1, 2**63]}}
    with pytest.raises(ValueError, match="out of range"):
        lines.bytes_with(plain)
    with pytest.raises(Unwritable) as raised:
        lines.bytes_of(plain)
    assert raised.value.place == "value.counts[1]"
