"""Shapes: the messages of a service between Python's types and protobuf's descriptors.

    a type --proto_types.py--> MessageShape --proto_lock.py--> numbers --descriptors.py--> descriptor --> message class
                                    └── plain_readers.py, plain_writers.py: message <-> plain value

A plain value is what msgspec makes of a value and what it makes a value of: dicts, lists, texts, numbers, bytes,
datetimes and timedeltas. A shape has no Python types, so that it can be pickled: a worker gets the shapes of its
methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"
VALUE = "google.protobuf.Value"
NULL = "google.protobuf.NullValue"
EMPTY = "google.protobuf.Empty"

KEEP = (bytes, bytearray, memoryview, datetime, timedelta)
"""Types of plain values beside those of JSON."""

IMPORTS = {
    TIMESTAMP: "google/protobuf/timestamp.proto",
    DURATION: "google/protobuf/duration.proto",
    VALUE: "google/protobuf/struct.proto",
    NULL: "google/protobuf/struct.proto",
    EMPTY: "google/protobuf/empty.proto",
}
"""The file of each type that protobuf brings along."""

Form = Literal["single", "repeated", "map", "oneof"]

Presence = Literal["implicit", "optional", "required"]
"""Whether an absent field is its zero, is left out, or is a fault. Protobuf knows only the first two."""

Plain = Literal["object", "array", "value"]
"""What the plain value of a message is: a dict, a list, or the value of its only field."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar of protobuf, or one of the types that protobuf brings along."""

    type: str

    @property
    def name(self) -> str:
        return self.type


@dataclass(slots=True)
class Reserved:
    """The numbers and names of removed fields, or of removed values of an enum."""

    numbers: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


@dataclass(eq=False, slots=True)
class EnumValue:
    """One value of an enum."""

    name: str
    plain: str | int | None
    """The value of the member in Python. None: no member."""
    number: int = 0


@dataclass(eq=False, slots=True)
class EnumShape:
    """An enum. The first value is the zero, which stands for an absent one."""

    name: str
    values: list[EnumValue]
    reserved: Reserved = field(default_factory=Reserved)
    about: str = ""


@dataclass(eq=False, slots=True)
class MessageShape:
    """A message."""

    name: str
    slots: list[Slot] = field(default_factory=list)
    plain: Plain = "object"
    tag: tuple[str, str | int] | None = None
    """The field of the plain value that names its class, and the name; of an array, its first item."""
    reserved: Reserved = field(default_factory=Reserved)
    about: str = ""
    """One line for the printed file."""

    def fields(self) -> Iterator[Slot]:
        """The fields of the message: the slots, and the members of each oneof in its place."""
        for slot in self.slots:
            if slot.form == "oneof":
                yield from slot.members
            else:
                yield slot


Kind = Leaf | EnumShape | MessageShape


@dataclass(eq=False, slots=True)
class Slot:
    """A field of a message, or a oneof of several."""

    name: str
    kind: Kind | None = None
    """None for a oneof."""
    form: Form = "single"
    presence: Presence = "implicit"
    key: str | int = ""
    """The place of its value in the plain value of the message."""
    key_kind: Leaf | None = None
    """Of a map."""
    members: list[Slot] = field(default_factory=list)
    """Of a oneof."""
    accepts: frozenset[Any] | None = None
    """The only plain values that a member of a oneof may have; None for all."""
    number: int = 0
    declared: int = 0
    """The number that the author gives the field with `Field(7)`."""
    is_null: bool = False
    """An absent field is None."""
    is_member: bool = False
    """Whether it is a member of a oneof."""
    written: str = ""
    """The place of its value in the plain value that is written, if that is another one."""
    is_computed: bool = False
    """Whether it is written only, and never read."""
    fallback: Any = None
    """The plain value of an absent field before others in an array."""


def named_kinds(*roots: Kind) -> list[MessageShape | EnumShape]:
    """The messages and enums of these, and inside them, in the order in which they are found."""
    found: dict[int, MessageShape | EnumShape] = {}
    waiting: list[Any] = list(reversed(roots))
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, Leaf) or id(kind) in found:
            continue
        found[id(kind)] = kind
        if isinstance(kind, MessageShape):
            waiting += [each.kind for each in reversed(list(kind.fields()))]
    return list(found.values())


def contains_itself(shape: MessageShape) -> bool:
    """Whether a message may be nested as deeply as its value is. A Value may always."""

    def is_below(kind: Kind | None, above: tuple[int, ...]) -> bool:
        if kind == Leaf(VALUE):
            return True
        if not isinstance(kind, MessageShape) or id(kind) in done:
            return False
        if id(kind) in above:
            return True
        found = any(is_below(each.kind, (*above, id(kind))) for each in kind.fields())
        done.add(id(kind))
        return found

    done: set[int] = set()
    return is_below(shape, ())
