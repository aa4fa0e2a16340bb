"""Messages as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import pytest
from google.protobuf.struct_pb2 import Value

from rpc_cases import codec_of
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.message_errors import BadMessage
from tinysvc.grpc.plain_readers import PlainReaders, Unreadable
from tinysvc.grpc.shapes import VALUE, Leaf


class Color(Enum):
    RED = "red"


@dataclass
class Line:
    at: datetime
    color: Color


@dataclass
class Order:
    lines: list[Line]


def test_missing_message_is_a_fault_at_its_place() -> None:
    codec = codec_of(Order)
    kind = message_class(codec.parts.files, "shop.HandleRequest")
    request = kind(value={"lines": [{"at": {"seconds": 1}, "color": 1}, {"color": 1}]})
    with pytest.raises(BadMessage) as failed:
        codec.decode_arguments(request.SerializeToString())
    assert failed.value.faults == [("value.lines[1].at", "is missing")]


@pytest.mark.parametrize(("number", "detail"), [(0, "is missing"), (7, "7 is no value of Color")])
def test_number_that_is_no_value_of_the_enum(number: int, detail: str) -> None:
    codec = codec_of(Order)
    kind = message_class(codec.parts.files, "shop.HandleRequest")
    request = kind(value={"lines": [{"at": {"seconds": 1}, "color": number}]})
    with pytest.raises(BadMessage) as failed:
        codec.decode_arguments(request.SerializeToString())
    assert failed.value.faults == [("value.lines[0].color", detail)]


def test_time_out_of_range_is_a_fault() -> None:
    codec = codec_of(Order)
    kind = message_class(codec.parts.files, "shop.HandleRequest")
    request = kind(value={"lines": [{"at": {"seconds": 10**13}, "color": 1}]})
    with pytest.raises(BadMessage, match="between the years 1 and 9999"):
        codec.decode_arguments(request.SerializeToString())


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_value_holds_only_numbers_that_json_has(number: float) -> None:
    read = PlainReaders().of(Leaf(VALUE))
    assert read is not None
    with pytest.raises(Unreadable, match="no number that JSON has"):
        read(Value(number_value=number))
