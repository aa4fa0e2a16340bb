"""Plain values as messages, by their shapes. The function of a shape is built once.

A function makes what the constructor of a message class takes: dicts, lists and scalars.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import msgspec

from .message_classes import message_class
from .message_errors import FieldFault
from .plain_readers import MAX_WHOLE
from .shapes import DURATION, NULL, TIMESTAMP, VALUE, EnumShape, Kind, Leaf, MessageShape, Slot

Convert = Callable[[Any], Any]
"""One plain value as the value of a field."""

_MISSING: Any = object()
_NONE: dict[Any, Any] = {}

_EXACT: dict[str, type] = {"int64": int, "double": float, "bool": bool, "string": str, "bytes": bytes}
"""The types whose values the constructor of a message takes as they are."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


class Unwritable(FieldFault):
    """A plain value does not fit its message: the place inside it, the value that came, and what was expected."""


class PlainWriters:
    """The functions that make what the constructor of a message takes: dicts, lists and scalars.

    Args:
        files: The descriptors.
        checks_all: Whether each value is checked here, with its place. Otherwise the constructor checks the values of
            the usual types, which is faster.
    """

    def __init__(self, files: bytes, *, checks_all: bool = False) -> None:
        self._files = files
        self._checks_all = checks_all
        self._known: dict[int, Convert] = {}

    def of(self, kind: Kind) -> Convert:
        """The function for one value of a kind."""
        if isinstance(kind, Leaf):
            return _value_writer(self._files) if kind.type == VALUE else _LEAF_WRITERS[kind.type]
        if isinstance(kind, EnumShape):
            return _enum_writer(kind)
        return self.message(kind)

    def message(self, shape: MessageShape) -> Convert:
        """The function for messages of a shape."""
        if (known := self._known.get(id(shape))) is not None:
            return known
        inner: list[Convert] = []
        self._known[id(shape)] = lambda value: inner[0](value)
        inner.append(self._built(shape))
        self._known[id(shape)] = inner[0]
        return inner[0]

    def _built(self, shape: MessageShape) -> Convert:
        singles = [self._single(each) for each in shape.slots if each.form == "single"]
        others = [self._several(each) for each in shape.slots if each.form != "single"]
        key = shape.slots[0].key if shape.plain == "value" else ""
        is_array, skipped = shape.plain == "array", 0 if shape.tag is None else 1
        is_value = shape.plain == "value"

        def write(value: Any) -> dict[str, Any]:
            if is_value:
                value = {key: value}
            elif is_array:
                if not isinstance(value, (list, tuple)):
                    raise Unwritable("", expected(value, "a list"))
                value = dict(enumerate(value[skipped:]))
            elif not isinstance(value, dict):
                raise Unwritable("", expected(value, "an object"))
            found: dict[str, Any] = {}
            for name, key_of, exact, is_optional, is_any, write_one in singles:
                one = value.get(key_of, _MISSING)
                if type(one) is exact:
                    found[name] = one
                elif one is _MISSING:
                    if not is_optional:
                        raise Unwritable(name, "is missing")
                elif one is not None or is_any or not is_optional:
                    found[name] = _write_inside(write_one, one, name)
            for add in others:
                add(value, found)
            return found

        return write

    def _exact(self, kind: Kind | None) -> type | None:
        """The type of values that the constructor takes and checks."""
        return _EXACT.get(kind.type) if isinstance(kind, Leaf) and not self._checks_all else None

    def _single(self, slot: Slot) -> tuple[str, str | int, type | None, bool, bool, Convert]:
        assert slot.kind is not None
        is_optional, is_any = slot.presence == "optional", slot.kind == Leaf(VALUE)
        return slot.name, slot.written or slot.key, self._exact(slot.kind), is_optional, is_any, self.of(slot.kind)

    def _several(self, slot: Slot) -> Callable[[Any, dict[str, Any]], None]:
        if slot.form == "oneof":
            return self._oneof(slot)
        assert slot.kind is not None
        name, key, write, exact = slot.name, slot.written or slot.key, self.of(slot.kind), self._exact(slot.kind)
        if slot.form == "repeated":
            return _add_items(name, key, write, exact)
        assert slot.key_kind is not None
        return _add_entries(name, key, write, _KEYS[slot.key_kind.type])

    def _oneof(self, slot: Slot) -> Callable[[Any, dict[str, Any]], None]:
        name, key, is_required = slot.name, slot.written or slot.key, slot.presence == "required"
        has_int = any(each.kind == Leaf("int64") for each in slot.members)
        members = [
            (each.name, fits(each, takes_int=not has_int), self.of(each.kind))
            for each in slot.members
            if each.kind is not None
        ]

        def add(value: Any, found: dict[str, Any]) -> None:
            if key not in value:
                if is_required:
                    raise Unwritable(name, "is missing")
                return
            one = value[key]
            for member, does_fit, write in members:
                if does_fit(one):
                    found[member] = _write_inside(write, one, member)
                    return
            if one is not None or is_required:
                raise Unwritable(name, expected(one, "a member of the union"))

        return add


def _write_inside(write: Convert, value: Any, name: str) -> Any:
    try:
        return write(value)
    except Unwritable as error:
        raise error.inside(name) from None


def _add_items(name: str, key: str | int, write: Convert, exact: type | None) -> Callable[[Any, dict[str, Any]], None]:
    alike = {exact}

    def add(value: Any, found: dict[str, Any]) -> None:
        items = value.get(key, ())
        if not isinstance(items, (list, tuple, set, frozenset)):
            raise Unwritable(name, expected(items, "a list"))
        if exact is not None and alike.issuperset(map(type, items)):
            found[name] = items
            return
        try:
            found[name] = [write(each) for each in items]
        except Unwritable:
            for index, each in enumerate(items):
                _write_inside(write, each, f"{name}[{index}]")
            raise

    return add


def _add_entries(
    name: str, key: str | int, write: Convert, write_key: Convert
) -> Callable[[Any, dict[str, Any]], None]:
    def add(value: Any, found: dict[str, Any]) -> None:
        entries = value.get(key, _NONE)
        if not isinstance(entries, dict):
            raise Unwritable(name, expected(entries, "an object"))
        found[name] = {
            _write_inside(write_key, each, f"{name}[{each!r}]"): _write_inside(write, one, f"{name}[{each!r}]")
            for each, one in entries.items()
        }

    return add


def fits(slot: Slot, *, takes_int: bool = True) -> Callable[[Any], bool]:
    """Whether a plain value can be that of this member of a oneof. `takes_int`: an integer is a double, too."""
    kind, accepts = slot.kind, slot.accepts
    if accepts is not None:
        return lambda value: type(value) in (str, int, bool) and value in accepts
    if isinstance(kind, Leaf):
        types = _PLAIN_TYPES[kind.type]
        if kind.type == "double" and not takes_int:
            types = (float,)
        takes_bool = bool in types or object in types
        return lambda value: isinstance(value, types) and (takes_bool or type(value) is not bool)
    if isinstance(kind, EnumShape):
        plain = {each.plain for each in kind.values if each.plain is not None}
        return lambda value: type(value) in (str, int) and value in plain
    assert kind is not None
    return _fits_message(kind)


def _fits_message(shape: MessageShape) -> Callable[[Any], bool]:
    if shape.plain == "value":
        (slot,) = shape.slots
        if slot.form == "repeated":
            return lambda value: isinstance(value, (list, tuple))
        if slot.form == "map":
            return lambda value: isinstance(value, dict)
        inner = [fits(each) for each in (slot.members if slot.form == "oneof" else [slot])]
        return lambda value: any(each(value) for each in inner) or (slot.is_null and value is None)
    if shape.plain == "array":
        return lambda value: isinstance(value, (list, tuple)) and (not shape.tag or value[:1] == [shape.tag[1]])
    if shape.tag is not None:
        field, tag = shape.tag
        return lambda value: isinstance(value, dict) and value.get(field) == tag
    keys = {each.written or each.key for each in shape.slots}
    needed = {each.written or each.key for each in shape.slots if each.presence != "optional"}
    fixed = [(each.written or each.key, each.accepts) for each in shape.slots if each.accepts is not None]
    return lambda value: (
        isinstance(value, dict)
        and needed <= value.keys() <= keys
        and all(value.get(key) in accepts for key, accepts in fixed if key in value)
    )


_PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    "int64": (int,),
    "double": (float, int),
    "bool": (bool,),
    "string": (str,),
    "bytes": (bytes, bytearray, memoryview, str),
    TIMESTAMP: (datetime, str),
    DURATION: (timedelta, str),
    VALUE: (object,),
    NULL: (type(None),),
}


def expected(value: Any, what: str) -> str:
    """What came and what was expected."""
    shown = "null" if value is None else f"{value!r:.100}"
    return f"{what} was expected, and {shown} came"


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unwritable("", expected(value, "an integer"))
    if not -(2**63) <= value < 2**63:
        raise Unwritable("", f"{value!r:.100} does not fit into 64 bits")
    return value


def _whole_key(value: Any) -> int:
    return _whole(int(value)) if isinstance(value, str) and value.lstrip("-").isdecimal() else _whole(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise Unwritable("", expected(value, "a number"))
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unwritable("", expected(value, "true or false"))
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unwritable("", expected(value, "a text"))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Unwritable("", f"{value!r:.100} is text with half of a surrogate pair") from None
    return value


def _octets(value: Any) -> bytes:
    if isinstance(value, str):  # pydantic's JSON of bytes
        return value.encode()
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise Unwritable("", expected(value, "bytes"))
    return bytes(value)


def _timestamp(value: Any) -> dict[str, int]:
    when = _parsed(value, datetime, "a time with a date")
    if when.tzinfo is None or when.utcoffset() is None:
        raise Unwritable(
            "",
            f"{value!r:.100} has no time zone, and a Timestamp is a point in time; give it one: datetime.now(UTC)",
        )
    whole, rest = divmod(when - _EPOCH, _SECOND)
    return {"seconds": whole, "nanos": rest.microseconds * 1000}


def _duration(value: Any) -> dict[str, int]:
    length = _parsed(value, timedelta, "a duration")
    sign = -1 if length < timedelta() else 1
    whole, rest = divmod(abs(length), _SECOND)
    if whole > MAX_DURATION:
        raise Unwritable("", f"{value!r:.100} is longer than the 10,000 years of a Duration")
    return {"seconds": sign * whole, "nanos": sign * rest.microseconds * 1000}


MAX_DURATION = 315_576_000_000
"""Seconds, as duration.proto limits them."""


def _parsed(value: Any, kind: Any, what: str) -> Any:
    if isinstance(value, kind):
        return value
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise Unwritable("", expected(value, what)) from None


def _value_writer(files: bytes) -> Convert:
    kind = message_class(files, VALUE)

    def write(value: Any) -> Any:
        message = kind()
        _fill(message, value)
        return message

    return write


def _fill(message: Any, value: Any) -> None:
    """Set a Value. JSON knows neither NaN nor infinity, and so a Value does not either."""
    if value is None or (isinstance(value, float) and not isfinite(value)):
        message.null_value = 0
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = _text(value)
    elif isinstance(value, (int, float)):
        if isinstance(value, int) and abs(value) > MAX_WHOLE:
            detail = f"{value!r:.100} loses digits as a number of a Value; annotate it as int, or send it as text"
            raise Unwritable("", detail)
        message.number_value = value
    elif isinstance(value, dict):
        message.struct_value.SetInParent()
        fields = message.struct_value.fields
        for key, each in value.items():
            _fill(fields[key_text(key)], each)
    elif isinstance(value, (list, tuple)):
        message.list_value.SetInParent()
        for each in value:
            _fill(message.list_value.values.add(), each)
    else:
        _fill(message, msgspec.to_builtins(value))


def key_text(key: Any) -> str:
    """A key of a dict as JSON has it."""
    return _text(key) if isinstance(key, str) else json.dumps(key)


def _nothing(value: Any) -> int:
    if value is not None:
        raise Unwritable("", expected(value, "null"))
    return 0


def _enum_writer(shape: EnumShape) -> Convert:
    numbers = {each.plain: each.number for each in shape.values if each.plain is not None}

    def write(value: Any) -> int:
        try:
            return numbers[value]
        except (KeyError, TypeError):
            raise Unwritable("", expected(value, f"a value of {shape.name}")) from None

    return write


_LEAF_WRITERS: dict[str, Convert] = {
    "int64": _whole,
    "double": _number,
    "bool": _truth,
    "string": _text,
    "bytes": _octets,
    TIMESTAMP: _timestamp,
    DURATION: _duration,
    NULL: _nothing,
}


_KEYS: dict[str, Convert] = {"string": key_text, "int64": _whole_key, "bool": _truth}
