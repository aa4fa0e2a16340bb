"""The text of a .proto file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

from rpc_cases import proto_of, schema_of
from tinysvc import io_route
from tinysvc.grpc.proto_file import ProtoField, ProtoFile, ProtoMessage, ProtoMethod
from tinysvc.grpc.proto_parser import parse_proto
from tinysvc.grpc.proto_text import ranges_of, text_of
from tinysvc.grpc.shapes import Reserved


class Color(Enum):
    RED = "red"


@dataclass
class Order:
    """An order of a customer.

    Not printed.
    """

    lines: list[str]
    key: int | str
    color: Color = Color.RED


@io_route("/orders", methods=["POST"])
async def watch(order: Order) -> AsyncIterator[Order]:
    """Watch an order."""
    yield order


TEXT = """\
syntax = "proto3";

package shop;

service Shop {
  // Watch an order.
  rpc Watch(WatchRequest) returns (stream Order);
}

message WatchRequest {
  Order order = 1;
}

// An order of a customer.
message Order {
  repeated string lines = 1;
  oneof key {
    int64 key_int64 = 2;
    string key_string = 3;
  }
  optional Color color = 4;
}

enum Color {
  COLOR_UNSPECIFIED = 0;
  COLOR_RED = 1;
}
"""


def test_text_of_a_service() -> None:
    assert proto_of(schema_of(watch)) == TEXT


def test_reserved_numbers_and_names() -> None:
    fields = [ProtoField("a", "int64", 1), ProtoField("b", "int64", 2)]
    file = ProtoFile("shop", messages={"A": ProtoMessage("A", fields, Reserved({3, 5, 6, 7}, {"y", "x"}))})
    assert text_of(file, "tinysvc shop.py --proto").splitlines()[7:] == [
        "message A {",
        "  reserved 3, 5 to 7;",
        '  reserved "x", "y";',
        "  int64 a = 1;",
        "  int64 b = 2;",
        "}",
    ]


def test_ranges() -> None:
    assert ranges_of([5, 1, 2, 3]) == [(1, 3), (5, 5)]


def test_method_does_not_hide_the_message_of_its_name() -> None:
    """protoc looks for the name of a type inside of the service first."""
    file = ProtoFile("shop", {"Shop": {"Item": ProtoMethod("Item", "Item", "ItemReply")}})
    assert "rpc Item(.shop.Item) returns (ItemReply);" in text_of(file)
    assert parse_proto(text_of(file), "shop.proto").services == file.services
