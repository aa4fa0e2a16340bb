"""Messages as the arguments and results themselves, without plain values between.

For types that a message checks completely: scalars, times, enums, and dataclasses and Structs of them, without
constraints and without code of the author. A function reads such a type with everything inside it:

    def function(message):
        v1 = message.order
        v2 = new(Order)
        v2.number = v1.number
        v3 = []
        for v4 in v1.lines:
            v5 = new(Line)
            v5.name = v4.name
            v3.append(v5)
        v2.lines = v3
        return {'order': v2}

It makes objects as msgspec does, without `__init__`. It finds no place of a fault: its callers then read the message as
plain values.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, get_args, get_origin

import msgspec

from .class_fields import REQUIRED
from .function_source import FunctionSource, Unfit, attribute
from .object_fields import ObjectField, bare, fields_of, without_none
from .plain_readers import PlainReaders, Unreadable, is_unconditional
from .shapes import DURATION, TIMESTAMP, VALUE, EnumShape, Kind, Leaf, MessageShape, Slot

CHECKED: dict[Any, str] = {int: "int64", float: "double", bool: "bool", str: "string", bytes: "bytes"}
"""Types whose values are those of a field."""

_CONVERTED: dict[Any, str] = {datetime: TIMESTAMP, timedelta: DURATION, Any: VALUE}


class ObjectReader:
    """Builds a function that reads a message."""

    def __init__(self) -> None:
        self._source = FunctionSource("message")
        self._new = self._source.constant(object.__new__)
        self._set = self._source.constant(object.__setattr__)
        self._missing = f"raise {self._source.constant(Unreadable)}('', 'is missing')"
        self._fields: list[str] = []

    def add(self, slot: Slot, annotation: Any, default: Any = REQUIRED) -> None:
        """Read a field of the message, too. Unfit if that needs plain values."""
        with self._source.all_or_nothing():
            field = ObjectField(str(slot.key), annotation, slot, default, None)
            self._fields.append(f"{slot.key!r}: {self._field(field, 'message')}")

    def arguments(self) -> Callable[[Any], dict[str, Any]]:
        """The function for the fields, by their keys. Unfit if it is too long."""
        return self._source.function(f"{{{', '.join(self._fields)}}}")

    def message(self, shape: MessageShape, annotation: Any) -> Callable[[Any], Any]:
        """The function for the object of the whole message. Unfit if that needs plain values."""
        return self._source.function(self._value(shape, annotation, "message"))

    def only_field(self, slot: Slot, annotation: Any) -> Callable[[Any], Any]:
        """The function for the value of the only field. Unfit if that needs plain values."""
        field = ObjectField("", annotation, slot, REQUIRED, None)
        return self._source.function(self._field(field, "message"))

    # Each adds lines, and returns an expression

    def _field(self, field: ObjectField, message: str) -> str:
        slot, source = field.slot, self._source
        value, annotation = attribute(message, slot.name), without_none(field.annotation)
        if slot.form == "repeated":
            return self._items(slot, annotation, value)
        if slot.form == "map":
            return self._entries(slot, annotation, value)
        if slot.form == "oneof" or slot.kind is None:
            raise Unfit
        if is_unconditional(slot):
            return self._value(slot.kind, annotation, value)
        is_there = f"{message}.HasField({slot.name!r})"
        if slot.presence == "required" or not (slot.is_null or field.has_default):
            source.add(f"if not {is_there}: {self._missing}")
            return self._value(slot.kind, annotation, value)
        absent = self._absent_value(field)
        if is_checked(slot.kind, annotation):
            return f"({value} if {is_there} else {absent})"
        found = source.variable()
        with source.block(f"if {is_there}:"):
            source.add(f"{found} = {self._value(slot.kind, annotation, value)}")
        source.add(f"else: {found} = {absent}")
        return found

    def _absent_value(self, field: ObjectField) -> str:
        if field.slot.is_null:
            return "None"
        if field.factory is not None:
            return f"{self._source.constant(field.factory)}()"
        return self._source.constant(field.default)

    def _value(self, kind: Kind, annotation: Any, value: str) -> str:
        if is_checked(kind, annotation):
            return value
        if isinstance(kind, Leaf):
            if _kind_of(_CONVERTED, annotation) != kind.type:
                raise Unfit
            return f"{self._source.constant(PlainReaders().of(kind))}({value})"
        if isinstance(kind, EnumShape):
            return f"{self._source.constant(members(kind, annotation))}[{value}]"
        if kind.plain == "value":
            message = self._variable(value)
            return self._field(ObjectField("", annotation, kind.slots[0], REQUIRED, None), message)
        return self._object(kind, annotation, value)

    def _variable(self, value: str) -> str:
        if value.isidentifier():
            return value
        name = self._source.variable()
        self._source.add(f"{name} = {value}")
        return name

    def _object(self, shape: MessageShape, annotation: Any, value: str) -> str:
        kind, source = bare(annotation), self._source
        fields = fields_of(kind, shape)
        with source.inside(kind):
            message, made = self._variable(value), source.constant(kind)
            if issubclass(kind, msgspec.Struct):
                values = [f"{each.name}={self._field(each, message)}" for each in fields]
                return f"{made}({', '.join(values)})"
            found, sets = source.variable(), kind.__setattr__ is not object.__setattr__
            source.add(f"{found} = {self._new}({made})")
            for each in fields:
                one = self._field(each, message)
                source.add(f"{self._set}({found}, {each.name!r}, {one})" if sets else f"{found}.{each.name} = {one}")
            return found

    def _items(self, slot: Slot, annotation: Any, value: str) -> str:
        made, arguments = get_origin(annotation) or annotation, get_args(annotation)
        if made not in (list, tuple, set, frozenset) or slot.kind is None:
            raise Unfit
        item = arguments[0] if arguments else Any
        if is_checked(slot.kind, item):
            return f"{value}[:]" if made is list else f"{made.__name__}({value})"
        source = self._source
        items, each = source.variable(), source.variable()
        source.add(f"{items} = []")
        with source.block(f"for {each} in {value}:"):
            source.add(f"{items}.append({self._value(slot.kind, item, each)})")
        return items if made is list else f"{made.__name__}({items})"

    def _entries(self, slot: Slot, annotation: Any, value: str) -> str:
        arguments = get_args(annotation) or (str, Any)
        if (get_origin(annotation) or annotation) is not dict or slot.kind is None or slot.key_kind is None:
            raise Unfit
        key, item = arguments
        if not is_checked(slot.key_kind, key):
            raise Unfit
        if is_checked(slot.kind, item):
            return f"dict({value})"
        source = self._source
        entries, found, each = self._variable(value), source.variable(), source.variable()
        source.add(f"{found} = {{}}")
        with source.block(f"for {each} in {entries}:"):
            source.add(f"{found}[{each}] = {self._value(slot.kind, item, f'{entries}[{each}]')}")
        return found


def is_checked(kind: Kind, annotation: Any) -> bool:
    """Whether the value of a field is a value of the type."""
    return isinstance(kind, Leaf) and _kind_of(CHECKED, bare(annotation)) == kind.type


def _kind_of(types: dict[Any, str], annotation: Any) -> str:
    return next((name for each, name in types.items() if each is bare(annotation)), "")


def members(shape: EnumShape, annotation: Any) -> dict[int, Any]:
    """The members of an enum by their numbers. Unfit if the type is no enum."""
    kind = bare(annotation)
    if not isinstance(kind, type) or not issubclass(kind, Enum):
        raise Unfit
    return {each.number: kind(each.plain) for each in shape.values if each.plain is not None}
