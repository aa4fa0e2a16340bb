"""Files as descriptors, and the message classes of descriptors. Nothing is generated on disk.

Each service has a pool of descriptors of its own, so that two services may have messages of one name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from google.protobuf import descriptor_pb2, duration_pb2, empty_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from .proto_file import ProtoField, ProtoFile, ProtoMessage
from .proto_names import Names, json_name
from .proto_text import ranges_of
from .shapes import IMPORTS, NULL, Reserved

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}
_BROUGHT = {
    each.name: each.serialized_pb
    for each in (timestamp_pb2.DESCRIPTOR, duration_pb2.DESCRIPTOR, struct_pb2.DESCRIPTOR, empty_pb2.DESCRIPTOR)
}


def file_descriptor(file: ProtoFile) -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of a file."""
    package = file.package
    proto = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    proto.dependency.extend(file.imports())
    for message in file.messages.values():
        _MessageWriter(proto.message_type.add(name=message.name), file).write(message)
    for enum in file.enums.values():
        declared = proto.enum_type.add(name=enum.name)
        for name, number in enum.values.items():
            declared.value.add(name=name, number=number)
        _reserve(declared, enum.reserved, beyond=0)
    for service, methods in file.services.items():
        served = proto.service.add(name=service)
        for each in methods.values():
            served.method.add(
                name=each.name,
                input_type=full_name(package, each.request),
                output_type=full_name(package, each.reply),
                client_streaming=each.client_streams or None,  # protoc leaves out what is false
                server_streaming=each.server_streams or None,
            )
    return proto


def full_name(package: str, name: str) -> str:
    """The name of a type as descriptors have it."""
    return f".{name}" if name in IMPORTS else f".{package}.{name}"


def _reserve(proto: Any, reserved: Reserved, beyond: int) -> None:
    """Reserve numbers and names. `beyond` is 1 for messages: their ranges end before `end`."""
    for first, last in ranges_of(reserved.numbers):
        proto.reserved_range.add(start=first, end=last + beyond)
    proto.reserved_name.extend(sorted(reserved.names))


class _MessageWriter:
    """Writes one message."""

    def __init__(self, proto: Any, file: ProtoFile) -> None:
        self._proto = proto
        self._file = file
        self._optional: list[Any] = []

    def write(self, message: ProtoMessage) -> None:
        oneofs = list(dict.fromkeys(each.oneof for each in message.fields if each.oneof))
        for name in oneofs:
            self._proto.oneof_decl.add(name=name)
        for each in message.fields:
            field = self._add(each)
            if each.oneof:
                field.oneof_index = oneofs.index(each.oneof)
        _reserve(self._proto, message.reserved, beyond=1)
        self._add_optional()

    def _add(self, field: ProtoField) -> Any:
        added = self._proto.field.add(
            name=field.name, number=field.number, label=_Field.LABEL_OPTIONAL, json_name=json_name(field.name)
        )
        if field.label == "map":
            entry = self._proto.nested_type.add(name=entry_name(field.name))
            entry.options.map_entry = True
            for number, name, kind in ((1, "key", field.key), (2, "value", field.type)):
                inner = entry.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL, json_name=name)
                self._set_type(inner, kind)
            added.type, added.label = _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED
            added.type_name = f".{self._file.package}.{self._proto.name}.{entry.name}"
            return added
        self._set_type(added, field.type)
        if field.label == "repeated":
            added.label = _Field.LABEL_REPEATED
        elif field.label == "optional":
            self._optional.append(added)
        return added

    def _set_type(self, field: Any, kind: str) -> None:
        if kind in _TYPES:
            field.type = _TYPES[kind]
            return
        is_enum = kind in self._file.enums or kind == NULL
        field.type = _Field.TYPE_ENUM if is_enum else _Field.TYPE_MESSAGE
        field.type_name = full_name(self._file.package, kind)

    def _add_optional(self) -> None:
        """An `optional` field is the only one of a oneof with a name that protoc makes."""
        taken = Names(*[each.name for each in self._proto.field], *[each.name for each in self._proto.oneof_decl])
        for field in self._optional:
            field.proto3_optional = True
            field.oneof_index = len(self._proto.oneof_decl)
            name = field.name if field.name.startswith("_") else f"_{field.name}"
            while taken.has(name):
                name = f"X{name}"
            self._proto.oneof_decl.add(name=taken.take(name))


def entry_name(field: str) -> str:
    """The name of the message with an entry of a map, as protoc makes it."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def with_imports(file: descriptor_pb2.FileDescriptorProto) -> bytes:
    """The descriptor and those that it imports, as a FileDescriptorSet."""
    files = descriptor_pb2.FileDescriptorSet()
    for name in file.dependency:
        files.file.add().ParseFromString(_BROUGHT[name])
    files.file.append(file)
    return bytes(files.SerializeToString())


@lru_cache(maxsize=32)
def pool_of(files: bytes) -> DescriptorPool:
    """A pool with the files of this FileDescriptorSet."""
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(files).file:
        pool.Add(file)
    return pool


def message_class(files: bytes, name: str) -> Any:
    """The class of the message with this full name."""
    return message_factory.GetMessageClass(pool_of(files).FindMessageTypeByName(name))
