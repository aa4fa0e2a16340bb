"""Classes that a library alone writes as `encoding` would, several times as fast; looked at once a class.

    msgspec   a Struct of texts, numbers and the like
    orjson    a dataclass. It writes `__dict__`, which in a decoded value lacks the fields that have their plain
              defaults. So no field of the dataclasses inside may have one, and the value itself is looked at

What a class says of its fields is believed: of `list[Item]`, every item is an Item, as long as that has no subclasses.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from functools import cached_property, lru_cache
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import msgspec
import orjson
from msgspec import inspect as inspection

JsonEncoder = Callable[[Any, Any, int], bytes]
"""`orjson.dumps`, or alike."""


class FastEncoder(NamedTuple):
    """How values of a class are written alone."""

    encode: JsonEncoder
    inner: tuple[type, ...] = ()
    """Dataclasses inside: whether their subclasses are written as well is not known."""
    defaults: Callable[[Any], Any] | None = None
    """Raises KeyError for a `__dict__` that lacks a field; None where none can."""


@lru_cache(maxsize=1024)
def fast_encoder_for(kind: type) -> FastEncoder | None:
    """None for a class of which no library alone writes all values as it should be."""
    if issubclass(kind, msgspec.Struct):
        infos = _infos_in(kind)
        if not infos or not all(isinstance(info, _BY_MSGSPEC) for info in infos):
            return None
        has_floats = any(isinstance(info, inspection.FloatType) for info in infos)
        return FastEncoder(_floats_by_msgspec if has_floats else _by_msgspec)
    if not _is_open_to_orjson(kind):
        return None
    infos = _infos_in(kind)
    if not infos or any(isinstance(info, _UNKNOWN) for info in infos):
        return None
    inner = {info.cls for info in infos[1:] if isinstance(info, inspection.DataclassType)}
    if any(not _is_open_to_orjson(each) or _plain_defaults(each) for each in inner):
        return None
    defaults = _plain_defaults(kind)
    return FastEncoder(orjson.dumps, tuple(inner), itemgetter(*defaults) if defaults else None)


def can_encode(value: Any, shape: FastEncoder) -> bool:
    """Whether a value of the class is written as it should be."""
    if shape.inner and any(map(type.__subclasses__, shape.inner)):
        return False
    if shape.defaults is not None:
        try:
            shape.defaults(value.__dict__)
        except KeyError:
            return False
    return True


def can_encode_all(values: list[Any], shape: FastEncoder) -> bool:
    """Whether all are of one class, and written as they should be."""
    if len(set(map(type, values))) > 1 or any(map(type.__subclasses__, shape.inner)):
        return False
    if shape.defaults is not None:
        try:
            deque(map(shape.defaults, map(_OWN, values)), 0)
        except KeyError:
            return False
    return True


_OWN = attrgetter("__dict__")


def _by_msgspec(value: Any, default: Any, option: int) -> bytes:
    return msgspec.json.encode(value)


def _floats_by_msgspec(value: Any, default: Any, option: int) -> bytes:
    """ValueError where a Decimal may stand in place of a float, and be no number: msgspec writes that as a text."""
    written = msgspec.json.encode(value)
    # One letter is looked for first, as a number: in JSON of numbers it is rare, and found many times as fast.
    if (_N in written and b"NaN" in written) or (_I in written and b"Infinity" in written):
        raise ValueError("a text, or a Decimal that is no number")
    return written


_N, _I = b"NI"


def _is_open_to_orjson(kind: type) -> bool:
    """Whether orjson writes of such values the fields that are in `__dict__`, and nothing else, as far as is known.

    It leaves out names with an underscore, and has no word for UNSET.
    """
    if "__dataclass_fields__" not in vars(kind) or hasattr(kind, "__post_init__"):
        return False
    if any(isinstance(each, cached_property) for base in kind.__mro__ for each in vars(base).values()):
        return False
    fields: Any = dataclasses.fields(kind)
    return not any(each.name.startswith("_") or each.default is msgspec.UNSET for each in fields)


def _plain_defaults(kind: Any) -> list[str]:
    """The fields that a decoded value may lack in `__dict__`; with slots there are none."""
    if "__slots__" in vars(kind):
        return []
    return [each.name for each in dataclasses.fields(kind) if each.default is not dataclasses.MISSING]


def _infos_in(kind: type) -> list[Any]:
    """What msgspec knows of a class and of all that its fields may hold, which may be that class again.

    Nothing if an annotation cannot be read.
    """
    found: list[Any] = []
    seen: set[int] = set()
    try:
        waiting: list[Any] = [inspection.type_info(kind)]
    except Exception:
        return []
    while waiting:
        info = waiting.pop()
        if isinstance(info, inspection.Metadata):
            info = info.type
        if id(info) in seen:
            continue
        if found:  # not the class itself: whether it comes again is asked for
            seen.add(id(info))
        found.append(info)
        waiting += [field.type for field in getattr(info, "fields", ())]
        waiting += [getattr(info, part) for part in ("item_type", "key_type", "value_type") if hasattr(info, part)]
        waiting += getattr(info, "item_types", ())
        waiting += getattr(info, "types", ())
    return found


_UNKNOWN = (inspection.AnyType, inspection.CustomType, inspection.ExtType)

_BY_MSGSPEC = (
    inspection.StructType,
    inspection.ListType,
    inspection.VarTupleType,
    inspection.UnionType,
    inspection.DictType,
    inspection.NoneType,
    inspection.BoolType,
    inspection.IntType,
    inspection.FloatType,
    inspection.StrType,
    inspection.LiteralType,
    inspection.DateTimeType,
    inspection.DateType,
    inspection.UUIDType,
    inspection.EnumType,
)
