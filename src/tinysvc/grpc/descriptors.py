"""Files as descriptors, written by hand (google/protobuf/descriptor.proto): see core/proto_bytes.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..core.proto_bytes import bytes_field, number_field
from .proto_file import ProtoEnum, ProtoField, ProtoFile, ProtoMessage, ProtoMethod
from .proto_names import Names, json_name
from .proto_text import ranges_of
from .shapes import IMPORTS, NULL, Reserved

_OPTIONAL, _REPEATED = 1, 3
_MESSAGE, _ENUM = 11, 14
_TYPES = {"double": 1, "int64": 3, "bool": 8, "string": 9, "bytes": 12}
"""FieldDescriptorProto.Label and FieldDescriptorProto.Type."""


def file_descriptor(file: ProtoFile) -> bytes:
    """The descriptor of a file: a FileDescriptorProto, encoded."""
    return b"".join(
        (
            bytes_field(1, f"{file.package}.proto"),
            bytes_field(2, file.package),
            *(bytes_field(3, each) for each in file.imports()),
            *(bytes_field(4, _MessageWriter(file, each).written()) for each in file.messages.values()),
            *(bytes_field(5, _enum(each)) for each in file.enums.values()),
            *(bytes_field(6, _service(file, name, each.values())) for name, each in file.services.items()),
            bytes_field(12, "proto3"),
        )
    )


def _enum(enum: ProtoEnum) -> bytes:
    values = [bytes_field(2, bytes_field(1, name) + number_field(2, number)) for name, number in enum.values.items()]
    return b"".join((bytes_field(1, enum.name), *values, *_reserved(enum.reserved, (4, 5), beyond=0)))


def _service(file: ProtoFile, name: str, methods: Iterable[ProtoMethod]) -> bytes:
    return bytes_field(1, name) + b"".join(bytes_field(2, _method(file, each)) for each in methods)


def _method(file: ProtoFile, method: ProtoMethod) -> bytes:
    return b"".join(
        (
            bytes_field(1, method.name),
            bytes_field(2, full_name(file.package, method.request)),
            bytes_field(3, full_name(file.package, method.reply)),
            number_field(5, 1) if method.client_streams else b"",  # protoc writes no false
            number_field(6, 1) if method.server_streams else b"",
        )
    )


def full_name(package: str, name: str) -> str:
    """The name of a type as descriptors have it."""
    return f".{name}" if name in IMPORTS else f".{package}.{name}"


def _reserved(reserved: Reserved, fields: tuple[int, int], beyond: int) -> Iterator[bytes]:
    """Reserved numbers and names, in these fields. `beyond` is 1 for messages: their ranges end before `end`."""
    for first, last in ranges_of(reserved.numbers):
        yield bytes_field(fields[0], number_field(1, first) + number_field(2, last + beyond))
    for name in sorted(reserved.names):
        yield bytes_field(fields[1], name)


class _MessageWriter:
    """Writes one message: a DescriptorProto."""

    def __init__(self, file: ProtoFile, message: ProtoMessage) -> None:
        self._file = file
        self._message = message
        self._oneofs = list(dict.fromkeys(each.oneof for each in message.fields if each.oneof))
        self._taken = Names(*[each.name for each in message.fields], *self._oneofs)

    def written(self) -> bytes:
        message = self._message
        fields = [bytes_field(2, self._field(each)) for each in message.fields]
        return b"".join(
            (
                bytes_field(1, message.name),
                *fields,
                *(bytes_field(3, self._entry(each)) for each in message.fields if each.label == "map"),
                *(bytes_field(8, bytes_field(1, name)) for name in self._oneofs),
                *_reserved(message.reserved, (9, 10), beyond=1),
            )
        )

    def _field(self, field: ProtoField) -> bytes:
        is_repeated = field.label in ("repeated", "map")
        oneof = self._own_oneof(field.name) if field.label == "optional" else field.oneof
        entry = f".{self._file.package}.{self._message.name}.{entry_name(field.name)}"
        return b"".join(
            (
                bytes_field(1, field.name),
                number_field(3, field.number),
                number_field(4, _REPEATED if is_repeated else _OPTIONAL),
                _type(_MESSAGE, entry) if field.label == "map" else self._type_of(field.type),
                number_field(9, self._oneofs.index(oneof)) if oneof else b"",
                bytes_field(10, json_name(field.name)),
                number_field(17, 1) if field.label == "optional" else b"",
            )
        )

    def _own_oneof(self, field: str) -> str:
        """The name of the oneof that protoc makes for an `optional` field: it is the only one there."""
        name = field if field.startswith("_") else f"_{field}"
        while self._taken.has(name):
            name = f"X{name}"
        self._oneofs.append(self._taken.take(name))
        return name

    def _entry(self, field: ProtoField) -> bytes:
        """The message with an entry of a map."""
        parts = [
            b"".join(
                (
                    bytes_field(1, name),
                    number_field(3, number),
                    number_field(4, _OPTIONAL),
                    self._type_of(kind),
                    bytes_field(10, name),
                )
            )
            for number, name, kind in ((1, "key", field.key), (2, "value", field.type))
        ]
        is_entry = bytes_field(7, number_field(7, 1))
        return b"".join((bytes_field(1, entry_name(field.name)), *(bytes_field(2, each) for each in parts), is_entry))

    def _type_of(self, kind: str) -> bytes:
        if kind in _TYPES:
            return number_field(5, _TYPES[kind])
        is_enum = kind in self._file.enums or kind == NULL
        return _type(_ENUM if is_enum else _MESSAGE, full_name(self._file.package, kind))


def _type(number: int, name: str) -> bytes:
    return number_field(5, number) + bytes_field(6, name)


def entry_name(field: str) -> str:
    """The name of the message with an entry of a map, as protoc makes it."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"
