"""A .proto file as data: what proto_text.py prints, proto_parser.py reads, and breaking.py compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .shapes import IMPORTS, EnumShape, MessageShape, Reserved, Slot

Label = Literal["", "optional", "repeated", "map"]


@dataclass(frozen=True)
class ProtoField:
    """A field of a message."""

    name: str
    type: str
    """A scalar, a message or enum of the file, or one that protobuf brings along, with its package."""
    number: int
    label: Label = ""
    key: str = ""
    """The type of the keys of a map."""
    oneof: str = ""

    @property
    def whole_type(self) -> str:
        """The type with its label, as far as it matters on the wire."""
        if self.label == "map":
            return f"map<{self.key}, {self.type}>"
        return f"repeated {self.type}" if self.label == "repeated" else self.type


@dataclass
class ProtoMessage:
    """A message."""

    name: str
    fields: list[ProtoField] = field(default_factory=list)
    reserved: Reserved = field(default_factory=Reserved)
    about: str = field(default="", compare=False)
    required: frozenset[str] = field(default=frozenset(), compare=False)
    """The fields and oneofs that the handler cannot do without; a parsed file does not know them."""

    def field_named(self, name: str) -> ProtoField | None:
        return next((each for each in self.fields if each.name == name), None)


@dataclass
class ProtoEnum:
    """An enum: its values by name."""

    name: str
    values: dict[str, int] = field(default_factory=dict)
    reserved: Reserved = field(default_factory=Reserved)
    about: str = field(default="", compare=False)


@dataclass(frozen=True)
class ProtoMethod:
    """A method of a service."""

    name: str
    request: str
    reply: str
    client_streams: bool = False
    server_streams: bool = False
    about: str = field(default="", compare=False)


@dataclass
class ProtoFile:
    """A file."""

    package: str
    services: dict[str, dict[str, ProtoMethod]] = field(default_factory=dict)
    messages: dict[str, ProtoMessage] = field(default_factory=dict)
    enums: dict[str, ProtoEnum] = field(default_factory=dict)

    def imports(self) -> list[str]:
        """The files that it imports."""
        types = {each.type for message in self.messages.values() for each in message.fields}
        for methods in self.services.values():
            for method in methods.values():
                types |= {method.request, method.reply}
        return sorted({IMPORTS[each] for each in types if each in IMPORTS})


def proto_file_of(
    package: str, service: str, kinds: Iterable[MessageShape | EnumShape], methods: Sequence[ProtoMethod]
) -> ProtoFile:
    """The file of numbered shapes."""
    file = ProtoFile(package)
    if methods:
        file.services[service] = {each.name: each for each in methods}
    for kind in kinds:
        if isinstance(kind, EnumShape):
            values = {each.name: each.number for each in kind.values}
            file.enums[kind.name] = ProtoEnum(kind.name, values, kind.reserved, kind.about)
        else:
            file.messages[kind.name] = ProtoMessage(
                kind.name,
                list(_fields_of(kind)),
                kind.reserved,
                kind.about,
                frozenset(each.name for each in kind.slots if each.presence == "required"),
            )
    return file


def _fields_of(shape: MessageShape) -> Iterator[ProtoField]:
    for slot in shape.slots:
        if slot.form == "oneof":
            yield from (field_of(each, slot.name) for each in slot.members)
        else:
            yield field_of(slot)


def field_of(slot: Slot, oneof: str = "") -> ProtoField:
    """The field of a slot that is no oneof."""
    assert slot.kind is not None
    label: Label = ""
    if slot.form in ("repeated", "map"):
        label = "map" if slot.form == "map" else "repeated"
    elif slot.presence == "optional" and not oneof:
        label = "optional"
    key = "" if slot.key_kind is None else slot.key_kind.type
    return ProtoField(slot.name, slot.kind.name, slot.number, label, key, oneof)
