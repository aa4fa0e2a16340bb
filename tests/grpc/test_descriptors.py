"""Descriptors, and the message classes of descriptors."""

from __future__ import annotations

from tinysvc.grpc.descriptors import Rpc, file_descriptor, message_class, ranges_of, with_imports
from tinysvc.grpc.shapes import TIMESTAMP, Leaf, MessageShape, Reserved, Slot


def test_descriptor_becomes_a_message_class() -> None:
    point = MessageShape("Point", [Slot("x", Leaf("int64"), number=3), Slot("at", Leaf(TIMESTAMP), number=1)])
    point.reserved = Reserved({4, 5, 9}, {"old"})
    file = file_descriptor("shop", "Shop", [point], [Rpc("Move", "Point", "Point", False, True)])
    assert list(file.dependency) == ["google/protobuf/timestamp.proto"]
    assert [(each.start, each.end) for each in file.message_type[0].reserved_range] == [(4, 6), (9, 10)]
    message = message_class(with_imports(file), "shop.Point")(x=7)
    assert message.SerializeToString() == b"\x18\x07"
    (method,) = file.service[0].method
    assert (method.input_type, method.server_streaming) == (".shop.Point", True)


def test_fields_with_one_name_in_json_keep_their_own_names() -> None:
    shape = MessageShape("A", [Slot("a_b", Leaf("int64"), number=1), Slot("aB", Leaf("int64"), number=2)])
    file = file_descriptor("shop", "Shop", [shape], [])
    assert [each.json_name for each in file.message_type[0].field] == ["a_b", "aB"]


def test_ranges() -> None:
    assert ranges_of([5, 1, 2, 3]) == [(1, 3), (5, 5)]
