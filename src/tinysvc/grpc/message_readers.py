"""Messages as plain values, by their shapes. The function of a shape is built once.

An attribute of a message costs more than an item of a dict, so one `attrgetter` reads all fields that need no
conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from .shapes import DURATION, EMPTY, NULL, TIMESTAMP, VALUE, EnumShape, Kind, Leaf, MessageShape, Slot

Convert = Callable[[Any], Any]
"""One value of a field, as a plain value or back."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class Unreadable(Exception):
    """A message lacks a field that the shape requires, or has an unknown value of an enum."""

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(place, detail)
        self.place = place
        self.detail = detail


class Readers:
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
        count = len(shape.slots)

        def read_array(message: Any) -> list[Any]:
            found = read(message)
            items = list(tag)
            for position in range(count):
                if position not in found:  # msgspec fills in the defaults of those that are left out at the end
                    if any(later in found for later in range(position, count)):
                        items.append(None)
                    continue
                items.append(found[position])
            return items

        return read_array

    def _fields(self, shape: MessageShape) -> Callable[[Any], dict[Any, Any]]:
        """The fields by their keys."""
        slots = [each for each in shape.slots if not each.is_computed]
        direct = [each for each in slots if self._is_direct(each)]
        is_tagged = shape.tag is not None and shape.plain == "object"
        first: dict[Any, Any] = dict([shape.tag]) if shape.tag is not None and is_tagged else {}
        others = [self._slot(each) for each in slots if not self._is_direct(each)]
        keys = tuple(each.key for each in direct)
        if len(direct) > 1:
            get = attrgetter(*[each.name for each in direct])

            def read(message: Any) -> dict[Any, Any]:
                found = dict(zip(keys, get(message), strict=True))
                for add in others:
                    add(message, found)
                return found if not first else first | found

            return read

        name, key = (direct[0].name, direct[0].key) if direct else ("", "")

        def read_few(message: Any) -> dict[Any, Any]:
            found = {**first, key: getattr(message, name)} if name else dict(first)
            for add in others:
                add(message, found)
            return found

        return read_few

    def _is_direct(self, slot: Slot) -> bool:
        return slot.form == "single" and slot.presence == "implicit" and self.of(slot.kind) is None  # type: ignore[arg-type]

    def _slot(self, slot: Slot) -> Callable[[Any, dict[Any, Any]], None]:
        """Adds the value of one field."""
        if slot.form == "oneof":
            return self._oneof(slot)
        assert slot.kind is not None
        name, key, read = slot.name, slot.key, self.of(slot.kind)
        if slot.form == "repeated":
            if read is None:

                def add(message: Any, found: dict[Any, Any]) -> None:
                    found[key] = list(getattr(message, name))

            else:

                def add(message: Any, found: dict[Any, Any]) -> None:
                    items = getattr(message, name)
                    try:
                        found[key] = [read(each) for each in items]
                    except Unreadable as error:
                        raise _inside_items(error, name, items, read) from None

            return add
        if slot.form == "map":

            def add_map(message: Any, found: dict[Any, Any]) -> None:
                entries = getattr(message, name)
                found[key] = dict(entries) if read is None else {each: read(entries[each]) for each in entries}

            return add_map
        return self._single(slot, read)

    def _single(self, slot: Slot, read: Convert | None) -> Callable[[Any, dict[Any, Any]], None]:
        name, key, is_null = slot.name, slot.key, slot.is_null
        if slot.presence == "optional":

            def add_optional(message: Any, found: dict[Any, Any]) -> None:
                if message.HasField(name):
                    value = getattr(message, name)
                    found[key] = value if read is None else _read_inside(read, value, name)
                elif is_null:
                    found[key] = None

            return add_optional
        assert read is not None
        has_presence = not isinstance(slot.kind, EnumShape)

        def add_required(message: Any, found: dict[Any, Any]) -> None:
            if has_presence and not message.HasField(name):
                raise Unreadable(name, "is missing")
            found[key] = _read_inside(read, getattr(message, name), name)

        return add_required

    def _oneof(self, slot: Slot) -> Callable[[Any, dict[Any, Any]], None]:
        name, key, is_null, is_required = slot.name, slot.key, slot.is_null, slot.presence == "required"
        readers = {each.name: self.of(each.kind) for each in slot.members if each.kind is not None}

        def add(message: Any, found: dict[Any, Any]) -> None:
            member = message.WhichOneof(name)
            if member is not None:
                value, read = getattr(message, member), readers[member]
                found[key] = value if read is None else _read_inside(read, value, member)
            elif is_null:
                found[key] = None
            elif is_required:
                raise Unreadable(name, "is missing")

        return add


def _read_inside(read: Convert, value: Any, name: str) -> Any:
    try:
        return read(value)
    except Unreadable as error:
        place = f"{name}.{error.place}" if error.place else name
        raise Unreadable(place, error.detail) from None


def _inside_items(error: Unreadable, name: str, items: Any, read: Convert) -> Unreadable:
    for index, each in enumerate(items):
        try:
            read(each)
        except Unreadable:
            return Unreadable(f"{name}[{index}].{error.place}".removesuffix("."), error.detail)
    return error


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
