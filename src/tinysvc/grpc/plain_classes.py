"""Classes that msgspec reads and writes field by field, without code of the author: dataclasses and Structs."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from ..binding.annotations import hints_of
from .function_source import Unfit
from .shapes import MessageShape, Slot

REQUIRED: Any = object()
"""The default of a required field."""


class PlainField(NamedTuple):
    """A field of a class, and its field in the message."""

    name: str
    annotation: Any
    slot: Slot
    default: Any
    """The default, or REQUIRED."""
    factory: Callable[[], Any] | None
    """Makes the default."""

    @property
    def has_default(self) -> bool:
        return self.default is not REQUIRED or self.factory is not None


def plain_fields(kind: Any, shape: MessageShape) -> list[PlainField]:
    """The fields of a class whose objects consist of their fields alone. Unfit for other types."""
    if not isinstance(kind, type) or shape.plain != "object" or shape.tag is not None:
        raise Unfit
    if hasattr(kind, "__post_init__"):
        raise Unfit
    if issubclass(kind, msgspec.Struct):
        declared = _of_struct(kind)
    elif dataclasses.is_dataclass(kind):
        declared = _of_dataclass(kind)
    else:
        raise Unfit
    slots = {each.key: each for each in shape.slots}
    if list(slots) != [key for _, key, _, _ in declared]:
        raise Unfit
    hints = hints_of(kind)
    return [PlainField(name, hints.get(name), slots[key], *default) for name, key, *default in declared]


def _of_struct(kind: Any) -> list[tuple[str, str, Any, Any]]:
    config, names, defaults = kind.__struct_config__, kind.__struct_fields__, kind.__struct_defaults__
    if config.omit_defaults:
        raise Unfit
    found = [REQUIRED] * (len(names) - len(defaults))
    found += [REQUIRED if each is msgspec.NODEFAULT else each for each in defaults]
    return [
        (name, key, default, getattr(default, "factory", None) if type(default).__name__ == "Factory" else None)
        for name, key, default in zip(names, kind.__struct_encode_fields__, found, strict=True)
    ]


def _of_dataclass(kind: Any) -> list[tuple[str, str, Any, Any]]:
    fields = dataclasses.fields(kind)
    if not all(each.init for each in fields):
        raise Unfit
    try:
        object.__new__(kind)
    except TypeError:  # a subclass of a builtin type, or an abstract class
        raise Unfit from None
    return [
        (
            each.name,
            each.name,
            REQUIRED if each.default is dataclasses.MISSING else each.default,
            None if each.default_factory is dataclasses.MISSING else each.default_factory,
        )
        for each in fields
    ]


def bare(annotation: Any) -> Any:
    """A type without the parts of Annotated. Unfit if it has a constraint."""
    while get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        if any(isinstance(each, msgspec.Meta) for each in extras):
            raise Unfit
    return annotation


def without_none(annotation: Any) -> Any:
    """The type of a value that is not None. Unfit for other unions."""
    annotation = bare(annotation)
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    values = [each for each in get_args(annotation) if each is not type(None)]
    if len(values) != 1:
        raise Unfit
    return bare(values[0])
