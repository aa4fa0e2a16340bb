"""Messages as plain values, by their shapes. The function of a shape is built once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, cast

from .function_source import attribute
from .message_errors import FieldFault
from .shapes import DURATION, EMPTY, NULL, TIMESTAMP, VALUE, EnumShape, Kind, Leaf, MessageShape, Slot

Convert = Callable[[Any], Any]
"""One value of a field, as a plain value or back."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Unreadable(FieldFault):
    """A message lacks a field that the shape requires, or has an unknown value of an enum."""


class PlainReaders:
    """The functions that read messages. One for each shape, built when it is first needed."""

    def __init__(self) -> None:
        self._known: dict[int, Convert] = {}

    def of(self, kind: Kind) -> Convert | None:
        """The function for one value of a kind; None if the value is plain already."""
        if isinstance(kind, Leaf):
            return _LEAF_READERS.get(kind.type)
        if isinstance(kind, EnumShape):
            return _enum_reader(kind)
        return self.message(kind)

    def message(self, shape: MessageShape) -> Convert:
        """The function for messages of a shape."""
        if (known := self._known.get(id(shape))) is not None:
            return known
        inner: list[Convert] = []
        self._known[id(shape)] = lambda message: inner[0](message)  # for a shape that contains itself
        inner.append(self._built(shape))
        self._known[id(shape)] = inner[0]
        return inner[0]

    def _built(self, shape: MessageShape) -> Convert:
        read = self._fields(shape)
        if shape.plain == "object":
            return read
        if shape.plain == "value":
            (slot,) = shape.slots
            return lambda message: read(message).get(slot.key)
        tag: list[Any] = [] if shape.tag is None else [shape.tag[1]]
        fallbacks = {each.key: each.fallback for each in shape.slots}

        def read_array(message: Any) -> list[Any]:
            found = read(message)
            last = max(found, default=-1)  # msgspec fills in the defaults of those that are left out at the end
            return [*tag, *(found.get(position, fallbacks[position]) for position in range(last + 1))]

        return read_array

    def _fields(self, shape: MessageShape) -> Callable[[Any], dict[Any, Any]]:
        """The fields by their keys: a function with a line for each field, made like those of a dataclass.

            def read(message):
                found = {'name': message.name, 'values': message.values[:]}
                at = ''
                try:
                    at = 'items'
                    found['items'] = read_items(read_2, message.items)
                except Unreadable as error:
                    raise error.inside(at) from None
                return found

        Names are identifiers (`Types.slot` checks it), and keys are literals.
        """
        names: dict[str, Any] = {"Unreadable": Unreadable, "read_items": _read_items, "read_entries": _read_entries}
        tag = [] if shape.tag is None or shape.plain != "object" else [f"{shape.tag[0]!r}: {shape.tag[1]!r}"]
        direct, others = [], list[str]()
        for number, slot in enumerate(each for each in shape.slots if not each.is_computed):
            if slot.form == "oneof":
                names[f"members_{number}"] = {each.name: self.of(each.kind) for each in slot.members if each.kind}
            else:
                assert slot.kind is not None
                names[f"read_{number}"] = self.of(slot.kind)
            is_plain = names.get(f"read_{number}") is None
            if is_plain and is_unconditional(slot):
                direct.append(f"{slot.key!r}: {_plain_expression(slot)}")
            else:
                others += _lines(slot, number, is_plain)
        body = [f"found = {{{', '.join([*tag, *direct])}}}"]
        if others:
            guarded = [f"    {line}" for line in others]
            body += ["at = ''", "try:", *guarded, "except Unreadable as error:", "    raise error.inside(at) from None"]
        source = "\n    ".join(["def read(message):", *body, "return found"])
        exec(source, names)  # noqa: S102 - see above
        return cast("Callable[[Any], dict[Any, Any]]", names["read"])


def _plain_expression(slot: Slot) -> str:
    value = attribute("message", slot.name)
    if slot.form == "single":
        return value
    return f"dict({value})" if slot.form == "map" else f"{value}[:]"


def _lines(slot: Slot, number: int, is_plain: bool) -> list[str]:
    """The lines for a field that is converted, or that may be absent."""
    name, found, value = repr(slot.name), f"found[{slot.key!r}]", attribute("message", slot.name)
    null = ["else:", f"    {found} = None"] if slot.is_null else []
    if slot.form == "oneof":
        required = ["else:", "    raise Unreadable('', 'is missing')"] if slot.presence == "required" else []
        return [
            f"at = {name}",
            f"member = message.WhichOneof({name})",
            "if member is not None:",
            "    at, value, read = member, getattr(message, member), " + f"members_{number}[member]",
            f"    {found} = value if read is None else read(value)",
            *(null or required),
        ]
    if slot.form in ("repeated", "map"):
        read_all = "read_items" if slot.form == "repeated" else "read_entries"
        return [f"at = {name}", f"{found} = {read_all}(read_{number}, {value})"]
    assigned = f"{found} = {value if is_plain else f'read_{number}({value})'}"
    if slot.presence == "optional":
        return [f"if message.HasField({name}):", f"    at = {name}", f"    {assigned}", *null]
    if is_unconditional(slot):
        return [f"at = {name}", assigned]
    missing = [f"if not message.HasField({name}):", "    raise Unreadable('', 'is missing')"]
    return [f"at = {name}", *missing, assigned]


def is_unconditional(slot: Slot) -> bool:
    """Whether the attribute has the value of the field also where the field is absent."""
    if slot.form == "single":
        return slot.presence == "implicit" or (slot.presence == "required" and isinstance(slot.kind, EnumShape))
    return slot.form != "oneof"


def _read_inside(read: Convert, value: Any, name: str) -> Any:
    try:
        return read(value)
    except Unreadable as error:
        raise error.inside(name) from None


def _read_items(read: Convert, items: Any) -> list[Any]:
    try:
        return [read(each) for each in items]
    except Unreadable:
        for index, each in enumerate(items):
            _read_inside(read, each, f"[{index}]")
        raise


def _read_entries(read: Convert, entries: Any) -> dict[Any, Any]:
    return {each: _read_inside(read, entries[each], f"[{each!r}]") for each in entries}


def _enum_reader(shape: EnumShape) -> Convert:
    values = {each.number: each.plain for each in shape.values if each.plain is not None}

    def read(number: int) -> Any:
        try:
            return values[number]
        except KeyError:
            detail = "is missing" if number == 0 else f"{number} is no value of {shape.name}"
            raise Unreadable("", detail) from None

    return read


def _read_timestamp(message: Any) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError:
        raise Unreadable("", "is no time between the years 1 and 9999") from None


def _read_duration(message: Any) -> timedelta:
    nanos = message.nanos
    try:
        return timedelta(seconds=message.seconds, microseconds=-(-nanos // 1000) if nanos < 0 else nanos // 1000)
    except OverflowError:
        raise Unreadable("", "is too long for a duration") from None


def _read_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        fields = message.struct_value.fields
        return {each: _read_value(fields[each]) for each in fields}
    if kind == "list_value":
        return [_read_value(each) for each in message.list_value.values]
    if kind is None or kind == "null_value":
        return None
    value = getattr(message, kind)
    if kind == "number_value" and not isfinite(value):
        raise Unreadable("", f"{value} is no number that JSON has")  # google/protobuf/struct.proto refuses it, too
    if kind == "number_value" and value.is_integer() and abs(value) <= MAX_WHOLE:
        return int(value)
    return value


MAX_WHOLE = 2**53
"""A double holds all integers up to this one."""

_LEAF_READERS: dict[str, Convert] = {
    TIMESTAMP: _read_timestamp,
    DURATION: _read_duration,
    VALUE: _read_value,
    NULL: lambda number: None,
    EMPTY: lambda message: None,
}
