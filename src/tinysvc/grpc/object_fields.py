"""Fields of classes whose objects consist of their fields alone: dataclasses and Structs without code of the author.

Other classes that documents have are left to plain values: see class_fields.py.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import inspect as inspection

from ..binding.aliases import readable_fields
from ..binding.annotations import hints_of
from .class_fields import REQUIRED
from .function_source import Unfit
from .shapes import MessageShape, Slot


class ObjectField(NamedTuple):
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


def fields_of(kind: Any, shape: MessageShape) -> list[ObjectField]:
    """The fields of such a class. Unfit for other types."""
    if not isinstance(kind, type) or shape.plain != "object" or shape.tag is not None or not _has_fields_alone(kind):
        raise Unfit
    with readable_fields(kind):
        info: Any = inspection.type_info(kind)
    slots = {each.key: each for each in shape.slots}
    if list(slots) != [each.encode_name for each in info.fields]:
        raise Unfit
    hints = hints_of(kind)
    return [
        ObjectField(
            each.name,
            hints.get(each.name),
            slots[each.encode_name],
            REQUIRED if each.default is msgspec.NODEFAULT else each.default,
            None if each.default_factory is msgspec.NODEFAULT else each.default_factory,
        )
        for each in info.fields
    ]


def _has_fields_alone(kind: Any) -> bool:
    if hasattr(kind, "__post_init__"):
        return False
    if issubclass(kind, msgspec.Struct):
        return not kind.__struct_config__.omit_defaults
    try:
        object.__new__(kind)
    except TypeError:  # a subclass of a builtin type, or an abstract class
        return False
    return dataclasses.is_dataclass(kind) and all(each.init for each in dataclasses.fields(kind))


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
