"""Shapes as descriptors, and the message classes of descriptors. Nothing is generated on disk.

Each service has a pool of descriptors of its own, so that two services may have messages of one name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, duration_pb2, empty_pb2, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from .proto_names import Names, json_name
from .shapes import IMPORTS, EnumShape, Kind, Leaf, MessageShape, Reserved, Slot

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

LARGEST_ENUM = 2**31 - 1


class Rpc(NamedTuple):
    """A method as the descriptor has it."""

    name: str
    request: str
    reply: str
    client_streams: bool
    server_streams: bool
    about: str = ""
    """One line for the printed file."""


def file_descriptor(
    package: str, service: str, kinds: Iterable[MessageShape | EnumShape], methods: Sequence[Rpc]
) -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of a service's file."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    used: set[str] = set()

    def full(name: str) -> str:
        if name in IMPORTS:
            used.add(IMPORTS[name])
            return f".{name}"
        return f".{package}.{name}"

    for kind in kinds:
        if isinstance(kind, EnumShape):
            _add_enum(file.enum_type.add(name=kind.name), kind)
        else:
            _MessageWriter(file.message_type.add(name=kind.name), full).write(kind)
    if methods:
        declared = file.service.add(name=service)
        for each in methods:
            declared.method.add(
                name=each.name,
                input_type=full(each.request),
                output_type=full(each.reply),
                client_streaming=each.client_streams,
                server_streaming=each.server_streams,
            )
    file.dependency.extend(sorted(used))
    return file


def _add_enum(proto: Any, shape: EnumShape) -> None:
    for each in shape.values:
        proto.value.add(name=each.name, number=each.number)
    _reserve(proto, shape.reserved, last=0)


def _reserve(proto: Any, reserved: Reserved, last: int) -> None:
    """Reserve numbers and names. `last` is 1 for messages: their ranges end before `end`."""
    for first, end in ranges_of(reserved.numbers):
        proto.reserved_range.add(start=first, end=end + last)
    proto.reserved_name.extend(sorted(reserved.names))


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The numbers as ranges, each with its last number."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


class _MessageWriter:
    """Writes one message."""

    def __init__(self, proto: Any, full: Callable[[str], str]) -> None:
        self._proto = proto
        self._full = full
        self._optional: list[Any] = []

    def write(self, shape: MessageShape) -> None:
        for slot in shape.slots:
            if slot.form == "oneof":
                index = len(self._proto.oneof_decl)
                self._proto.oneof_decl.add(name=slot.name)
                for each in slot.members:
                    self._add(each).oneof_index = index
            else:
                self._add(slot)
        _reserve(self._proto, shape.reserved, last=1)
        self._add_optional(shape)
        self._separate_json_names()

    def _add(self, slot: Slot) -> Any:
        kind = slot.kind
        assert kind is not None
        field = self._proto.field.add(name=slot.name, number=slot.number, label=_Field.LABEL_OPTIONAL)
        if slot.form == "map":
            assert slot.key_kind is not None
            entry = self._proto.nested_type.add(name=entry_name(slot.name))
            entry.options.map_entry = True
            key = entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, json_name="key")
            self._set_type(key, slot.key_kind)
            value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL, json_name="value")
            self._set_type(value, kind)
            field.type, field.label = _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED
            field.type_name = f"{self._full(self._proto.name)}.{entry.name}"
            return field
        self._set_type(field, kind)
        if slot.form == "repeated":
            field.label = _Field.LABEL_REPEATED
        elif slot.presence == "optional" and not slot.is_member:
            self._optional.append(field)
        return field

    def _set_type(self, field: Any, kind: Kind) -> None:
        if isinstance(kind, Leaf) and kind.type in _TYPES:
            field.type = _TYPES[kind.type]
            return
        is_enum = isinstance(kind, EnumShape) or kind.name == "google.protobuf.NullValue"
        field.type = _Field.TYPE_ENUM if is_enum else _Field.TYPE_MESSAGE
        field.type_name = self._full(kind.name)

    def _add_optional(self, shape: MessageShape) -> None:
        """An `optional` field is the only one of a oneof with a name that protoc makes."""
        taken = Names(*[each.name for each in self._proto.field], *[each.name for each in self._proto.oneof_decl])
        for field in self._optional:
            field.proto3_optional = True
            field.oneof_index = len(self._proto.oneof_decl)
            name = f"_{field.name}"
            while taken.has(name):
                name = f"X{name}"
            self._proto.oneof_decl.add(name=taken.take(name))

    def _separate_json_names(self) -> None:
        """Names in JSON, as protoc makes them; the fields' own names where two would be the same."""
        made = [json_name(each.name) for each in self._proto.field]
        for field, name in zip(self._proto.field, made, strict=True):
            field.json_name = name if made.count(name) == 1 else field.name


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
