"""Descriptors, and the message classes of descriptors."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from tinysvc.grpc.descriptors import file_descriptor
from tinysvc.grpc.message_classes import file_set, message_class
from tinysvc.grpc.proto_file import ProtoField, ProtoFile, ProtoMessage, ProtoMethod
from tinysvc.grpc.shapes import TIMESTAMP, Reserved


def test_descriptor_becomes_a_message_class() -> None:
    fields = [ProtoField("x", "int64", 3), ProtoField("at", TIMESTAMP, 1)]
    point = ProtoMessage("Point", fields, Reserved({4, 5, 9}, {"old"}))
    move = ProtoMethod("Move", "Point", "Point", False, True)
    proto = ProtoFile("shop", {"Shop": {"Move": move}}, {"Point": point})
    file = FileDescriptorProto.FromString(file_descriptor(proto))
    assert list(file.dependency) == ["google/protobuf/timestamp.proto"]
    assert [(each.start, each.end) for each in file.message_type[0].reserved_range] == [(4, 6), (9, 10)]
    message = message_class(file_set([file_descriptor(proto)]), "shop.Point")(x=7)
    assert message.SerializeToString() == b"\x18\x07"
    (method,) = file.service[0].method
    assert (method.input_type, method.server_streaming) == (".shop.Point", True)


def test_name_of_the_oneof_of_an_optional_field_is_free() -> None:
    fields = [ProtoField("x", "int64", 1, "optional"), ProtoField("_x", "int64", 2)]
    file = FileDescriptorProto.FromString(file_descriptor(ProtoFile("shop", messages={"A": ProtoMessage("A", fields)})))
    assert [each.name for each in file.message_type[0].oneof_decl] == ["X_x"]
