"""Descriptors with their imports, and their message classes."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from tinysvc.grpc.descriptors import file_descriptor
from tinysvc.grpc.message_classes import file_set, files_in, message_class, with_imports
from tinysvc.grpc.proto_file import ProtoField, ProtoFile, ProtoMessage
from tinysvc.grpc.shapes import TIMESTAMP


def test_imports_come_before_the_files_that_import_them() -> None:
    point = ProtoMessage("Point", [ProtoField("at", TIMESTAMP, 1)])
    own = [file_descriptor(ProtoFile(name, messages={"Point": point})) for name in ("shop", "store")]
    files = [FileDescriptorProto.FromString(each).name for each in with_imports(files_in(file_set(own)))]
    assert files == ["google/protobuf/timestamp.proto", "shop.proto", "store.proto"]


def test_two_services_have_messages_of_one_name() -> None:
    files = [
        file_set(
            [file_descriptor(ProtoFile("shop", messages={"A": ProtoMessage("A", [ProtoField(name, "int64", 1)])}))]
        )
        for name in ("x", "y")
    ]
    made = [message_class(each, "shop.A") for each in files]
    assert [[field.name for field in each.DESCRIPTOR.fields] for each in made] == [["x"], ["y"]]
