"""Results as messages, without plain values between: the other way of object_readers.py, for the same types.

    def function(value):
        if type(value) is not Receipt: raise Unfit
        v1 = value.number
        if type(v1) is not int: raise Unfit
        v2 = value.total
        if type(v2) is not float: raise Unfit
        return {'number': v1, 'total': v2}

It takes values of exactly these types. For all others, and for those that the message class refuses, its callers go by
plain values, which convert a value or name its fault.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, get_args, get_origin

from .function_source import FunctionSource, Unfit, attribute
from .object_fields import bare, fields_of, without_none
from .object_readers import is_checked, members
from .plain_writers import PlainWriters
from .shapes import DURATION, TIMESTAMP, EnumShape, Kind, MessageShape, Slot

_CONVERTED: dict[str, Any] = {TIMESTAMP: datetime, DURATION: timedelta}


class ObjectWriter:
    """Builds a function that makes the arguments of the constructor of a message.

    Args:
        files: The descriptors.
    """

    def __init__(self, files: bytes) -> None:
        self._writers = PlainWriters(files)
        self._source = FunctionSource("value")
        self._unfit = f"raise {self._source.constant(Unfit)}"

    def message(self, shape: MessageShape, annotation: Any) -> Callable[[Any], dict[str, Any]]:
        """The function for the value of a whole message. Unfit if the type needs plain values."""
        return self._source.function(self._object(shape, annotation, "value"))

    def only_field(self, slot: Slot, annotation: Any) -> Callable[[Any], dict[str, Any]]:
        """The function for the value of the only field of a message. Unfit if the type needs plain values."""
        return self._source.function(f"{{{slot.name!r}: {self._field(slot, annotation, 'value')}}}")

    # Each adds lines, and returns an expression. `value` is a variable

    def _field(self, slot: Slot, annotation: Any, value: str) -> str:
        annotation = without_none(annotation)
        if slot.form == "oneof" or slot.kind is None:
            raise Unfit
        if slot.presence != "optional" or slot.form != "single":
            return self._present(slot, slot.kind, annotation, value)
        written = self._source.variable()
        with self._source.block(f"if {value} is not None:"):
            self._source.add(f"{written} = {self._present(slot, slot.kind, annotation, value)}")
        self._source.add(f"else: {written} = None")  # which the constructor leaves out
        return written

    def _present(self, slot: Slot, kind: Kind, annotation: Any, value: str) -> str:
        if slot.form == "repeated":
            return self._items(kind, annotation, value)
        return self._entries(slot, annotation, value) if slot.form == "map" else self._value(kind, annotation, value)

    def _value(self, kind: Kind, annotation: Any, value: str) -> str:
        annotation = bare(annotation)
        if isinstance(kind, MessageShape):
            if kind.plain == "value":
                return f"{{{kind.slots[0].name!r}: {self._field(kind.slots[0], annotation, value)}}}"
            return self._object(kind, annotation, value)
        if is_checked(kind, annotation):
            self._check_type(annotation, value)
            return value
        if isinstance(kind, EnumShape):
            self._check_type(annotation, value)
            return f"{self._source.constant(_numbers(kind, annotation))}[{value}]"
        if _CONVERTED.get(kind.type) is not annotation:
            raise Unfit
        self._check_type(annotation, value)
        return f"{self._source.constant(self._writers.of(kind))}({value})"

    def _check_type(self, kind: Any, value: str) -> None:
        is_not = " and ".join(f"type({value}) is not {self._source.constant(each)}" for each in taken_for(kind))
        self._source.add(f"if {is_not}: {self._unfit}")

    def _check_types(self, kind: Any, values: str) -> None:
        """Check values that may be many, without a step for each."""
        are_all = self._source.constant(set(taken_for(bare(kind))).issuperset)
        self._source.add(f"if not {are_all}(map(type, {values})): {self._unfit}")

    def _object(self, shape: MessageShape, annotation: Any, value: str) -> str:
        kind, source = bare(annotation), self._source
        fields = fields_of(kind, shape)
        with source.inside(kind):
            self._check_type(kind, value)
            written: list[str] = []
            for each in fields:
                one = source.variable()
                source.add(f"{one} = {attribute(value, each.name)}")
                written.append(f"{each.slot.name!r}: {self._field(each.slot, each.annotation, one)}")
            return f"{{{', '.join(written)}}}"

    def _items(self, kind: Kind, annotation: Any, value: str) -> str:
        made, arguments = get_origin(annotation) or annotation, get_args(annotation)
        if made not in (list, tuple, set, frozenset) or not arguments:
            raise Unfit
        self._check_type(made, value)
        (item, *_), source = arguments, self._source
        if is_checked(kind, item):
            self._check_types(item, value)
            return value
        items, each = source.variable(), source.variable()
        source.add(f"{items} = []")
        with source.block(f"for {each} in {value}:"):
            source.add(f"{items}.append({self._value(kind, item, each)})")
        return items

    def _entries(self, slot: Slot, annotation: Any, value: str) -> str:
        made, arguments = get_origin(annotation) or annotation, get_args(annotation)
        if made is not dict or not arguments or slot.key_kind is None or slot.kind is None:
            raise Unfit
        (key, item), source = arguments, self._source
        if not is_checked(slot.key_kind, key):
            raise Unfit
        self._check_type(dict, value)
        self._check_types(key, value)
        if is_checked(slot.kind, item):
            self._check_types(item, f"{value}.values()")
            return value
        found, each, one = source.variable(), source.variable(), source.variable()
        source.add(f"{found} = {{}}")
        with source.block(f"for {each}, {one} in {value}.items():"):
            source.add(f"{found}[{each}] = {self._value(slot.kind, item, one)}")
        return found


def _numbers(shape: EnumShape, annotation: Any) -> dict[Any, int]:
    """The numbers of an enum by its members. Unfit if they compare or hash in a way of their own."""
    found = members(shape, annotation)
    try:
        numbers = {member: number for number, member in found.items()}
        if any(numbers[member] != number for number, member in found.items()):
            raise Unfit
    except Exception:  # of the author's code, or they have no hash
        raise Unfit from None
    return numbers


def taken_for(kind: Any) -> tuple[Any, ...]:
    """The types whose values a field of this type takes."""
    return (float, int) if kind is float else (kind,)
