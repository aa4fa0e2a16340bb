"""Every mismatch between a value and its type, as (place, detail); msgspec alone reports the first one only.

This slow search runs after msgspec has refused a value. It walks through the value and its type together. Mismatches
that it cannot find, such as an error of `__post_init__`, come from msgspec's own error.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from .aliases import is_recursive_alias, substituted
from .annotations import hints_of

MAX_MISMATCHES = 100
"""Places that one response names."""

MAX_VALUES = 20_000
"""Values that one search visits: about 20 ms of the event loop."""

Mismatch = tuple[str, str]


def mismatches(
    value: Any,
    annotation: Any,
    first: msgspec.ValidationError,
    *,
    root: str = "$",
    strict: bool = True,
    dec_hook: Callable[[type, Any], Any] | None = None,
    is_query: bool = False,
    known: Sequence[Mismatch] = (),
) -> list[Mismatch]:
    """All mismatches of a value that msgspec has refused with the error `first`, including that one.

    Args:
        value: The decoded value.
        annotation: Its type.
        first: msgspec's error.
        root: The place of the value itself.
        strict: Whether msgspec converts no texts to numbers.
        dec_hook: As for msgspec.
        is_query: Whether the value comes from a query, where "+" means a space.
        known: Mismatches found before. They come first, and their places get no further mismatch.
    """
    walk = _Walk(strict, dec_hook, is_query)
    try:
        walk.visit(value, annotation, root)
    except _LimitReached:
        pass
    except RecursionError:
        walk.found.clear()
    places = {place for place, _ in known}
    walk.found[:] = [*known, *[each for each in walk.found if each[0] not in places]]
    detail, _, place = str(first).partition(" - at `$")
    is_known = bool(known) and detail.endswith("out of range")
    if not is_known and not any(each.startswith(detail) for _, each in walk.found):
        walk.found.insert(0, (root + place.removesuffix("`"), detail))
    return walk.found[:MAX_MISMATCHES]


def explained(detail: str, value: Any, reads: Callable[[str], bool], *, is_query: bool = False) -> str:
    """msgspec's detail, completed with the value that came, and with the remedy for a `+` in a query."""
    if not isinstance(value, str):
        return detail
    if "got `str`" in detail:
        return detail
    if detail.startswith("Invalid") and repr(value)[1:-1] not in detail:
        detail = f"{detail}, got {value[:100]!r}"
    before, space, after = value.rpartition(" ")
    if is_query and space and reads(f"{before}+{after}"):
        detail += "; a '+' in a query stands for a space: write it as %2B"
    return detail


def numbers_out_of_range(body: bytes | memoryview) -> tuple[Any, list[Mismatch]]:
    """A JSON document that msgspec refuses because of a number, with infinity in place of each such number.

    DecodeError, ValueError or RecursionError if the document is malformed.
    """
    msgspec.json.Decoder(msgspec.Raw).decode(body)
    value = json.loads(bytes(body), parse_int=lambda text: int(text) if len(text) < _MAX_DIGITS else math.inf)
    return value, [(place, "Number out of range") for place in islice(_infinities(value, "$"), MAX_MISMATCHES)]


def _infinities(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and math.isinf(value):
        yield place
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _infinities(each, f"{place}[{index}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _infinities(each, f"{place}.{key[:100]}")


_MAX_DIGITS = 4300
"""The longest integer that Python and msgspec read."""


class _LimitReached(Exception):
    """The search has reached MAX_MISMATCHES or MAX_VALUES."""


class _Field(NamedTuple):
    name: str
    annotation: Any
    required: bool


class _Walk:
    def __init__(self, strict: bool, dec_hook: Callable[[type, Any], Any] | None, is_query: bool) -> None:
        self.found: list[Mismatch] = []
        self._strict = strict
        self._dec_hook = dec_hook
        self._is_query = is_query
        self._left = MAX_VALUES

    def visit(self, value: Any, annotation: Any, place: str) -> None:
        self._left -= 1
        if self._left < 0 or len(self.found) >= MAX_MISMATCHES:
            raise _LimitReached
        kind = _member(value, annotation)
        before, left = len(self.found), self._left
        if kind is None or not self._visit_parts(value, kind, place):
            self._check(value, annotation, place)
        elif len(self.found) == before:
            self._left -= left - self._left  # _check reads the whole value again
            self._check(value, annotation, place)

    def _visit_parts(self, value: Any, kind: Any, place: str) -> bool:
        """Visit the parts of a value; False if it has none."""
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        if is_recursive_alias(origin):
            self.visit(value, origin.value(), place)
        elif isinstance(value, list) and origin in (list, set, frozenset, *_SEQUENCES):
            for index, each in enumerate(value):
                self.visit(each, arguments[0] if arguments else Any, f"{place}[{index}]")
        elif isinstance(value, list) and origin is tuple and arguments:
            several = arguments[:1] * len(value) if arguments[-1] is ... else arguments
            self._visit_positions(value, several, place, kind)
        elif isinstance(value, list) and (parts := _positions(origin, kind)) is not None:
            self._visit_positions(value, parts, place, kind)
        elif isinstance(value, dict) and origin in (dict, *_MAPPINGS):
            for key, each in value.items():
                self.visit(each, arguments[1] if arguments else Any, f"{place}.{str(key)[:100]}")
        elif isinstance(value, dict) and (fields := _fields(origin, kind)) is not None:
            self._visit_fields(value, fields, place)
        else:
            return False
        return True

    def _visit_positions(self, value: list[Any], several: Sequence[Any], place: str, kind: Any) -> None:
        before = len(self.found)
        for index, (each, item) in enumerate(zip(value, several, strict=False)):
            self.visit(each, item, f"{place}[{index}]")
        if len(self.found) == before:
            return  # visit reads the whole value again
        try:
            self._convert(value, kind)
        except msgspec.ValidationError as error:
            if str(error).startswith("Expected `array` of") and " - at " not in str(error):  # the length
                self.found.append((place, str(error)))
        except Exception:
            pass

    def _visit_fields(self, value: dict[str, Any], fields: list[_Field], place: str) -> None:
        for name, annotation, required in fields:
            if name in value:
                self.visit(value[name], annotation, f"{place}.{name}")
            elif required:
                self.found.append((place, f"Object missing required field `{name}`"))

    def _check(self, value: Any, annotation: Any, place: str) -> None:
        try:
            self._convert(value, annotation)
        except msgspec.ValidationError as error:
            detail, _, inner = str(error).partition(" - at `$")
            if not inner:
                detail = explained(detail, value, lambda text: self._reads(text, annotation), is_query=self._is_query)
            self.found.append((place + inner.removesuffix("`"), detail))
        except Exception:
            pass

    def _convert(self, value: Any, annotation: Any) -> None:
        msgspec.convert(value, annotation, strict=self._strict, dec_hook=self._dec_hook)

    def _reads(self, text: str, annotation: Any) -> bool:
        try:
            self._convert(text, annotation)
        except Exception:
            return False
        return True


_SEQUENCES = (abc.Sequence, abc.MutableSequence, abc.Collection, abc.Set, abc.MutableSet)
_MAPPINGS = (abc.Mapping, abc.MutableMapping)


def _member(value: Any, annotation: Any) -> Any:
    """The type that a value must have: of a union, the only member that it can be, or None if that is unclear."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    options = [_member(value, each) for each in get_args(annotation)]
    if isinstance(value, dict):
        options = [each for each in options if each is not None and _is_object(each)]
        if len(options) > 1:
            options = [each for each in options if _has_tag(value, get_origin(each) or each)]
    elif isinstance(value, list):
        options = [each for each in options if each is not None and _is_array(each)]
    else:
        return None
    return options[0] if len(options) == 1 else None


def _is_object(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return is_recursive_alias(origin) or origin in (dict, *_MAPPINGS) or _fields(origin, kind) is not None


def _is_array(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if is_recursive_alias(origin) or origin in (list, tuple, set, frozenset, *_SEQUENCES):
        return True
    return _positions(origin, kind) is not None


def _has_tag(value: dict[str, Any], kind: Any) -> bool:
    config = getattr(kind, "__struct_config__", None)
    return config is not None and config.tag_field is not None and value.get(config.tag_field) == config.tag


def _positions(origin: Any, kind: Any) -> list[Any] | None:
    """The types of a NamedTuple, or of a Struct with `array_like`; None for other classes."""
    if not isinstance(origin, type):
        return None
    config: Any = getattr(origin, "__struct_config__", None)
    if config is not None and config.array_like:
        before, names = [Any] * (config.tag is not None), getattr(origin, "__struct_fields__")  # noqa: B009
    elif issubclass(origin, tuple) and hasattr(origin, "_fields"):
        before, names = [], origin._fields
    else:
        return None
    hints = _hints(origin, kind)
    return [*before, *[hints.get(name, Any) for name in names]]


def _fields(origin: Any, kind: Any) -> list[_Field] | None:
    """The fields of a class, by their names in a document; None for other types."""
    names = _names(origin)
    if names is None:
        return None
    hints = _hints(origin, kind)
    return [_Field(encoded, hints.get(name, Any), required) for name, encoded, required in names]


def _hints(origin: Any, kind: Any) -> dict[str, Any]:
    parameters = dict(zip(getattr(origin, "__parameters__", ()), get_args(kind), strict=False))
    return {name: substituted(_bare(hint), parameters) for name, hint in hints_of(origin).items()}


def _bare(hint: Any) -> Any:
    """A hint without `Required`, `NotRequired`, `ClassVar` and `Final`."""
    while get_origin(hint) in (typing.Required, typing.NotRequired, typing.ClassVar, typing.Final):
        hint = get_args(hint)[0]
    return hint


def _names(kind: Any) -> list[tuple[str, str, bool]] | None:
    """For each field: its name, its name in a document, and whether it is required."""
    if not isinstance(kind, type):
        return None
    if issubclass(kind, msgspec.Struct):
        if kind.__struct_config__.array_like:
            return None
        defaults = kind.__struct_defaults__
        missing = len(kind.__struct_fields__) - len(defaults)
        needed = [True] * missing + [default is msgspec.NODEFAULT for default in defaults]
        return list(zip(kind.__struct_fields__, kind.__struct_encode_fields__, needed, strict=True))
    if dataclasses.is_dataclass(kind):
        return [
            (each.name, each.name, each.default is dataclasses.MISSING is each.default_factory)
            for each in dataclasses.fields(kind)
            if each.init
        ]
    if typing.is_typeddict(kind):
        required = vars(kind)["__required_keys__"]
        return [(name, name, name in required) for name in typing.get_type_hints(kind)]
    if (own := getattr(kind, "__attrs_attrs__", None)) is not None:
        return [(each.name, each.name, repr(each.default) == "NOTHING") for each in own if each.init]
    return None
