"""The messages of google.rpc that say why a call has failed: their files, for reflection. rpc_errors.py writes them."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

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


def detail_files() -> list[bytes]:
    """The files with the messages, encoded."""
    files = (
        _file("status", _STATUS, "google/protobuf/any.proto"),
        _file("error_details", _DETAILS, "google/protobuf/duration.proto"),
    )
    return [file.SerializeToString() for file in files]


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
