"""Classes whose values msgspec or orjson can encode alone, several times as fast as the table in encoding.py.

    msgspec   a Struct whose fields are texts, numbers and similar types
    orjson    a dataclass. orjson writes `__dict__`, and in a decoded value that lacks the fields with a plain default.
              Inner dataclasses must therefore have no such field, and each outer value is checked

The decision is made once per class and trusts the annotations: every item of `list[Item]` is an Item, unless Item has
subclasses.
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
"""`orjson.dumps`, or a function with the same arguments."""


class FastEncoder(NamedTuple):
    """How one library encodes the values of a class."""

    encode: JsonEncoder
    inner: tuple[type, ...] = ()
    """Inner dataclasses. Values of their subclasses may have other fields: see `can_encode`."""
    defaults: Callable[[Any], Any] | None = None
    """Raises KeyError for a `__dict__` that lacks a field. None if no field can be missing."""


@lru_cache(maxsize=1024)
def fast_encoder_for(kind: type) -> FastEncoder | None:
    """The fast encoder of a class; None if no library encodes all its values correctly."""
    if issubclass(kind, msgspec.Struct):
        infos = _type_infos(kind)
        if not infos or not all(isinstance(info, _BY_MSGSPEC) for info in infos):
            return None
        has_floats = any(isinstance(info, inspection.FloatType) for info in infos)
        return FastEncoder(_floats_by_msgspec if has_floats else _by_msgspec)
    if not _orjson_writes_all_fields(kind):
        return None
    infos = _type_infos(kind)
    if not infos or any(isinstance(info, _UNKNOWN) for info in infos):
        return None
    inner = {info.cls for info in infos[1:] if isinstance(info, inspection.DataclassType)}
    if any(not _orjson_writes_all_fields(each) or _plain_defaults(each) for each in inner):
        return None
    defaults = _plain_defaults(kind)
    return FastEncoder(orjson.dumps, tuple(inner), itemgetter(*defaults) if defaults else None)


def can_encode(value: Any, encoder: FastEncoder) -> bool:
    """Whether the encoder writes this value correctly."""
    if encoder.inner and any(map(type.__subclasses__, encoder.inner)):
        return False
    if encoder.defaults is not None:
        try:
            encoder.defaults(value.__dict__)
        except KeyError:
            return False
    return True


def can_encode_all(values: list[Any], encoder: FastEncoder) -> bool:
    """Whether all values have one class, and the encoder writes them correctly."""
    if len(set(map(type, values))) > 1 or any(map(type.__subclasses__, encoder.inner)):
        return False
    if encoder.defaults is not None:
        try:
            deque(map(encoder.defaults, map(_INSTANCE_DICT, values)), 0)
        except KeyError:
            return False
    return True


_INSTANCE_DICT = attrgetter("__dict__")


def _by_msgspec(value: Any, default: Any, option: int) -> bytes:
    return msgspec.json.encode(value)


def _floats_by_msgspec(value: Any, default: Any, option: int) -> bytes:
    """ValueError if NaN or Infinity may stand in the text: msgspec writes a Decimal in a float field that way."""
    written = msgspec.json.encode(value)
    # Search for one letter first: it is rare in JSON of numbers, and the search is many times as fast.
    if (_N in written and b"NaN" in written) or (_I in written and b"Infinity" in written):
        raise ValueError("the value holds NaN or Infinity, in a text or in a Decimal")
    return written


_N, _I = b"NI"


def _orjson_writes_all_fields(kind: type) -> bool:
    """Whether orjson writes the fields of a dataclass in `__dict__`, all of them and nothing else.

    orjson omits names with an underscore, and does not know UNSET.
    """
    if "__dataclass_fields__" not in vars(kind) or hasattr(kind, "__post_init__"):
        return False
    if any(isinstance(each, cached_property) for base in kind.__mro__ for each in vars(base).values()):
        return False
    fields: Any = dataclasses.fields(kind)
    return not any(each.name.startswith("_") or each.default is msgspec.UNSET for each in fields)


def _plain_defaults(kind: Any) -> list[str]:
    """The fields that may be missing in the `__dict__` of a decoded value; none for a class with slots."""
    if "__slots__" in vars(kind):
        return []
    return [each.name for each in dataclasses.fields(kind) if each.default is not dataclasses.MISSING]


def _type_infos(kind: type) -> list[Any]:
    """msgspec's description of a class and of all types that its fields may hold, recursively.

    The list is empty if an annotation cannot be resolved.
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
        if found:  # the class itself is not marked: the list shows whether it occurs in its own fields
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
