"""The messages of google.rpc that say why a call has failed: their files for reflection, and classes made of them.

The classes are in a pool of their own: the package googleapis-common-protos may register the same names.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_STATUS: dict[str, list[tuple[str, str]]] = {
    "Status": [("code", "int32"), ("message", "string"), ("details", "repeated .google.protobuf.Any")],
}
_DETAILS: dict[str, list[tuple[str, str]]] = {
    "ErrorInfo": [("reason", "string"), ("domain", "string"), ("metadata", "map .google.rpc.ErrorInfo.MetadataEntry")],
    "ErrorInfo.MetadataEntry": [("key", "string"), ("value", "string")],
    "RetryInfo": [("retry_delay", ".google.protobuf.Duration")],
    "BadRequest": [("field_violations", "repeated .google.rpc.BadRequest.FieldViolation")],
    "BadRequest.FieldViolation": [("field", "string"), ("description", "string")],
}
"""Name and type of each field in the order of its number, as in google/rpc/status.proto and error_details.proto."""

_TYPES = {"string": FieldDescriptorProto.TYPE_STRING, "int32": FieldDescriptorProto.TYPE_INT32}


def detail_files() -> list[FileDescriptorProto]:
    """The files with the messages, each behind the files that it imports."""
    imported = [FileDescriptorProto(), FileDescriptorProto()]
    any_pb2.DESCRIPTOR.CopyToProto(imported[0])
    duration_pb2.DESCRIPTOR.CopyToProto(imported[1])
    return [*imported, _file("status", _STATUS, imported[0].name), _file("error_details", _DETAILS, imported[1].name)]


@cache
def detail_classes() -> dict[str, Any]:
    """The classes of the messages by name."""
    pool = DescriptorPool()
    for file in detail_files():
        pool.Add(file)
    names = ("Status", "ErrorInfo", "RetryInfo", "BadRequest")
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}")) for name in names}


def _file(name: str, messages: dict[str, list[tuple[str, str]]], imported: str) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"google/rpc/{name}.proto", package="google.rpc", syntax="proto3")
    file.dependency.append(imported)
    found: dict[str, DescriptorProto] = {}
    for message, fields in messages.items():
        outer, _, inner = message.partition(".")
        made = found[outer].nested_type.add(name=inner) if inner else file.message_type.add(name=outer)
        found[message] = made
        for number, (field, kind) in enumerate(fields, 1):
            _add_field(made, field, number, kind)
        if inner.endswith("Entry"):
            made.options.map_entry = True
    return file


def _add_field(message: DescriptorProto, name: str, number: int, kind: str) -> None:
    label, _, of = kind.rpartition(" ")
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if label else FieldDescriptorProto.LABEL_OPTIONAL
    if of in _TYPES:
        field.type = _TYPES[of]
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, of
