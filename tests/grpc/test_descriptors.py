"""Descriptors, and the message classes of descriptors."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from tinysvc.grpc.descriptors import file_descriptor, file_set, files_in, message_class, with_imports
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


def test_imports_come_before_the_files_that_import_them() -> None:
    point = ProtoMessage("Point", [ProtoField("at", TIMESTAMP, 1)])
    own = [file_descriptor(ProtoFile(name, messages={"Point": point})) for name in ("shop", "store")]
    files = [FileDescriptorProto.FromString(each).name for each in with_imports(files_in(file_set(own)))]
    assert files == ["google/protobuf/timestamp.proto", "shop.proto", "store.proto"]
