"""JSON of any value: one encoder with one table, for results, NDJSON, events, WebSocket messages and MessagePack.

    fast_encoders ──> a class that one library encodes alone
    orjson ──> for an unknown type, `_simpler` converts the value by a table of types ──> orjson
       └─ refuses (a long integer, a key that is not text, an unknown type) ──> `to_plain` walks the value, slowly

`to_plain` uses the same table and knows its place in the value: an error names the type, the place and the remedy.
Types of optional libraries (numpy, pandas, polars, SQLAlchemy, asyncpg, pydantic) are recognised by their methods; none
of the libraries is imported here.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import uuid
from collections import UserString, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set, ValuesView
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from .errors import UnencodableResult
from .fast_encoders import can_encode, can_encode_all, fast_encoder_for

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS
"""Dataclasses go through the table: orjson reads `__dict__`, and a decoded value lacks its defaults there."""

_ANY_KEYS = _OPTIONS | orjson.OPT_NON_STR_KEYS

_WITHOUT_FIELDS = frozenset({dict, str, int, float, bool, type(None)})


def json_bytes(value: Any) -> bytes:
    """`value` as JSON. NaN and infinities become null. UnencodableResult: a value has no JSON."""
    kind = type(value)
    if kind not in _WITHOUT_FIELDS:
        is_list = kind is list and bool(value)
        encoder = fast_encoder_for(type(value[0]) if is_list else kind)  # type: ignore[arg-type]  # a class is hashable
        if encoder is not None and (can_encode_all if is_list else can_encode)(value, encoder):
            try:
                return encoder.encode(value, _simpler, orjson.OPT_UTC_Z)
            except (TypeError, ValueError):  # a field has another type than its annotation
                pass
    try:
        return orjson.dumps(value, _simpler, _OPTIONS)
    except TypeError:
        pass
    try:
        return orjson.dumps(value, _simpler, _ANY_KEYS)
    except TypeError:
        return json.dumps(to_plain(value), separators=(",", ":"), ensure_ascii=False).encode()


def to_plain(value: Any, *, keep: tuple[type, ...] = ()) -> Any:
    """`value` as dicts, lists, texts, numbers and None, and values of exactly the types in `keep`.

    UnencodableResult for any other value; it names the place.
    """
    try:
        return _plain(value, "$", keep)
    except RecursionError:
        raise UnencodableResult(
            f"the handler's result, a {_name(value)}, cannot be encoded: it contains itself, or is nested too deeply; "
            "return a value without the cycle"
        ) from None


def _fields_of(kind: type) -> tuple[str, ...] | None:
    """The names of the fields of a dataclass or an attrs class; None for other classes."""
    declared = _declared(kind)
    return None if declared is None else tuple(field.name for field in declared)


def _declared(kind: Any) -> Any:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else getattr(kind, "__attrs_attrs__", None)


def _plain(value: Any, place: str, keep: tuple[type, ...]) -> Any:
    if value is None or isinstance(value, bool) or type(value) in keep:
        return value
    if isinstance(value, Enum):
        return _plain(value.value, place, keep)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _unencodable(place, "text with half of a surrogate pair", "encode it with errors='replace'") from None
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key, place): _plain(each, f"{place}.{key}", keep) for key, each in value.items()}
    if type(value) in (list, tuple):
        return [_plain(each, f"{place}[{n}]", keep) for n, each in enumerate(value)]
    simpler = _converter_of(type(value))  # type: ignore[arg-type]  # a class is hashable
    if simpler is not None:
        try:
            made = simpler(value)
        except (TypeError, ValueError, AttributeError) as error:
            raise _unencodable(place, f"a {_name(value)}", f"convert it in the handler ({error})") from error
        return _plain(made, place, keep)
    try:
        return orjson.loads(orjson.dumps(value, option=_ANY_KEYS))  # a UUID, a date, one of numpy's scalars
    except TypeError:
        pass
    if isinstance(value, (datetime, time)):  # a time with an offset; a time zone that orjson does not know
        return value.isoformat()
    if isinstance(value, Iterable):
        raise _unencodable(place, f"a {_name(value)}", "return it as a list, or yield its items")
    if isinstance(value, Coroutine):
        raise _unencodable(place, f"a {_name(value)}", "await it, as in `return await call(...)`")
    remedy = "return a dict or a dataclass of it, or a standard type such as a number or text"
    raise _unencodable(place, f"a {_name(value)}", remedy)


def _key(key: Any, place: str) -> str:
    made = _plain(key, place, ()) if not isinstance(key, str) else key
    if isinstance(made, str):
        return str(made)
    if isinstance(made, (bool, int, float, type(None))):
        return json.dumps(made)
    raise _unencodable(place, f"a dict with the key {key!r:.100}", "give it keys of text, as in str(key)")


def _unencodable(place: str, description: str, remedy: str) -> UnencodableResult:
    return UnencodableResult(f"the handler's result cannot be encoded: {place} is {description}; {remedy}")


def _name(value: Any) -> str:
    kind = type(value)
    is_plain = kind.__module__ in ("builtins", "__main__", "__mp_main__")
    return kind.__qualname__ if is_plain else f"{kind.__module__}.{kind.__qualname__}"


# The table


def _simpler(value: Any) -> Any:
    """Convert a value of a type that orjson does not know, by one step."""
    convert = _converter_of(type(value))  # type: ignore[arg-type]  # a class is hashable
    if convert is None:
        raise TypeError(f"{type(value)} has no JSON")
    return convert(value)


@lru_cache(maxsize=1024)
def _converter_of(kind: type) -> Callable[[Any], Any] | None:
    """The function that converts a value of this type by one step. None if there is none, or orjson knows the type."""
    if kind.__name__ in ("NaTType", "NAType"):
        return lambda value: None
    if issubclass(kind, msgspec.Struct):
        return _of_struct(kind)
    if hasattr(kind, "model_dump"):  # pydantic
        return _of_model
    names = _fields_of(kind)
    if names is not None:
        return _of_fields(kind, names)
    if kind in _KNOWN_TO_ORJSON:
        return None
    for base, convert in _STANDARD.items():
        if issubclass(kind, base):
            return convert
    if issubclass(kind, float) and hasattr(kind, "tolist"):
        return float  # numpy.float64
    if kind.__module__ == "ipaddress":
        return str
    for method, convert in _BY_METHOD.items():
        if hasattr(kind, method):
            return convert
    return list if issubclass(kind, (tuple, Set, ValuesView, deque, range, Sequence)) else None


def _of_fields(kind: Any, names: tuple[str, ...]) -> Callable[[Any], dict[str, Any]]:
    can_be_unset = any(getattr(each, "default", None) is msgspec.UNSET for each in _declared(kind))

    def fields(value: Any) -> dict[str, Any]:
        own: dict[str, Any] | None = getattr(value, "__dict__", None)
        if own is not None and tuple(own) == names and not can_be_unset:
            return own
        found = {name: getattr(value, name, msgspec.UNSET) for name in names}
        return {name: each for name, each in found.items() if each is not msgspec.UNSET}

    return fields


def _of_struct(kind: Any) -> Callable[[Any], Any]:
    """As msgspec encodes it: names, tag and order of the class, and without defaults for `omit_defaults`."""
    config, names = kind.__struct_config__, kind.__struct_fields__
    pairs = tuple(zip(names, kind.__struct_encode_fields__, strict=True))
    tag = {} if config.tag is None else {config.tag_field: config.tag}
    if config.array_like:
        return lambda value: [*tag.values(), *[getattr(value, name) for name in names]]
    defaults = dict(zip(names[::-1], kind.__struct_defaults__[::-1], strict=False)) if config.omit_defaults else {}

    def fields(value: Any) -> dict[str, Any]:
        found = dict(tag)
        for name, written in pairs:
            each = getattr(value, name)
            if each is not msgspec.UNSET and not (name in defaults and _is_default(each, defaults[name])):
                found[written] = each
        return found

    return fields


def _is_default(value: Any, default: Any) -> bool:
    factory = getattr(default, "factory", None)
    return value is default or (factory in (list, dict, set) and type(value) is factory and not value)


def _of_model(model: Any) -> Any:
    try:
        return model.model_dump(mode="json", by_alias=True)
    except ValueError:  # a value that pydantic cannot encode, such as one of numpy: the table may know it
        return model.model_dump(by_alias=True)


def _of_array(array: Any) -> Any:
    """An array or a scalar of numpy, a tensor, a pandas Series.

    orjson encodes numbers itself. It does not get dates: it writes NaT as the year 1677.
    """
    kind = getattr(getattr(array, "dtype", None), "kind", "")
    if kind in ("b", "i", "u", "f"):
        try:
            return orjson.Fragment(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))
        except TypeError:  # not contiguous, in the other byte order, or not of numpy
            pass
    if kind in ("M", "m") and hasattr(array, "astype") and not hasattr(array, "index"):
        array = array.astype("datetime64[us]" if kind == "M" else "timedelta64[us]")  # of nanoseconds it makes integers
    made = array.tolist()
    return float(made) if type(made) is type(array) else made  # `tolist` of a long double returns the same type


def _of_datetime(value: datetime) -> datetime:
    """A subclass of datetime, such as pandas.Timestamp, as a datetime."""
    day, clock = (value.year, value.month, value.day), (value.hour, value.minute, value.second, value.microsecond)
    return datetime(*day, *clock, value.tzinfo, fold=value.fold)


def _of_timedelta(value: timedelta) -> Any:
    return msgspec.to_builtins(timedelta(value.days, value.seconds, value.microseconds))


def _of_path(value: os.PathLike[Any]) -> str:
    return os.fsdecode(value)


def _of_row(row: Any) -> dict[Any, Any]:
    """A row of sqlite3 or asyncpg, which is not a Mapping, or any Mapping that is not a dict."""
    return {key: row[key] for key in row.keys()}  # noqa: SIM118 - iterating over a row gives its values


_STANDARD: dict[type, Callable[[Any], Any]] = {
    datetime: _of_datetime,
    date: lambda day: date(day.year, day.month, day.day),
    timedelta: _of_timedelta,
    Decimal: lambda number: str(number) if number.is_finite() else None,
    uuid.UUID: str,
    UserString: str,
    bytes: lambda octets: msgspec.to_builtins(bytes(octets)),
    bytearray: msgspec.to_builtins,
    memoryview: lambda view: msgspec.to_builtins(bytes(view)),
    msgspec.Raw: lambda raw: orjson.Fragment(bytes(raw)),
    os.PathLike: _of_path,
    Mapping: _of_row,
}
_KNOWN_TO_ORJSON = (datetime, date, uuid.UUID)

_BY_METHOD: dict[str, Callable[[Any], Any]] = {
    "_mapping": lambda row: dict(row._mapping),  # SQLAlchemy
    "to_dicts": lambda frame: frame.to_dicts(),  # polars
    "to_pylist": lambda table: table.to_pylist(),  # pyarrow
    "iterrows": lambda frame: frame.to_dict("records"),  # pandas
    "tolist": _of_array,
    "to_list": lambda series: series.to_list(),  # polars
    "keys": _of_row,
}
