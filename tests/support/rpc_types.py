"""Random types with values, for the tests of gRPC's messages."""

from __future__ import annotations

import itertools
import keyword
import os
import re
import string
import typing
import uuid
from collections.abc import Callable
from dataclasses import field, make_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

_numbers = itertools.count()
"""msgspec refuses a type with two different classes of one name."""

NASTY_NAMES = re.findall(
    r"\w+",
    "a_b aB a_B ab message optional repeated reserved value key map oneof x_int64 x_string _x X Clear ByteSize stream "
    "int64 string double bytes syntax package option returns rpc extend group true inf nan service enum Order",
)


class Typed(NamedTuple):
    """A type, and a strategy for its values."""

    kind: Any
    values: st.SearchStrategy[Any]


def _datetimes() -> st.SearchStrategy[datetime]:
    return st.datetimes(timezones=st.just(UTC))


LEAVES = [
    Typed(int, st.integers(-(2**63), 2**63 - 1)),
    Typed(float, st.floats(allow_nan=False)),
    Typed(bool, st.booleans()),
    Typed(str, st.text(st.characters(codec="utf-8"), max_size=20)),
    Typed(bytes, st.binary(max_size=20)),
    Typed(datetime, _datetimes()),
    Typed(timedelta, st.timedeltas(timedelta(days=-3_000_000), timedelta(days=3_000_000))),
    Typed(date, st.dates()),
    Typed(uuid.UUID, st.uuids()),
    Typed(Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=2)),
    Typed(Literal["a", "b"], st.sampled_from(["a", "b"])),
    Typed(
        Any,
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.text(st.characters(codec="utf-8"), max_size=5),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            max_leaves=4,
        ),
    ),
]

ALONE_IN_A_UNION = {str: "text", bytes: "text", datetime: "text", timedelta: "text", date: "text", uuid.UUID: "text"}
"""msgspec reads one text of a union only."""


def named(name: str) -> str:
    """The name with a number of its own."""
    return f"{name}{next(_numbers)}"


def names(count: int) -> st.SearchStrategy[list[str]]:
    plain = st.text(string.ascii_lowercase + "_", min_size=1, max_size=5).filter(lambda each: each.isidentifier())
    return st.lists(st.sampled_from(NASTY_NAMES) | plain, min_size=1, max_size=count, unique_by=str.lower).filter(
        lambda found: not any(map(_is_keyword, found))
    )


def _is_keyword(name: str) -> bool:
    return keyword.iskeyword(name)


@st.composite
def enums(draw: st.DrawFn) -> Typed:
    members = draw(names(4).map(lambda found: [each for each in found if each[0] != "_" and each != "mro"] or ["RED"]))
    kind = Enum(named(draw(st.sampled_from(["Color", "Level", "A_B"]))), [(each, f"{each}!") for each in members])  # type: ignore[misc]
    return Typed(kind, st.sampled_from(kind))


@st.composite
def unions(draw: st.DrawFn) -> Typed:
    members = [each for each in LEAVES if each.kind in (int, str, bool)]
    chosen = draw(st.lists(st.sampled_from(members), min_size=2, max_size=3, unique_by=lambda each: each.kind))
    kind = chosen[0].kind
    for each in chosen[1:]:
        kind = kind | each.kind
    return Typed(kind, st.one_of(*[each.values for each in chosen]))


@st.composite
def tagged(draw: st.DrawFn) -> Typed:
    inner = draw(st.sampled_from(LEAVES[:5]))
    kinds = [msgspec.defstruct(named(name), [("x", inner.kind)], tag=True) for name in ("Cat", "Dog")]
    return Typed(kinds[0] | kinds[1], st.one_of(*[st.builds(each, inner.values) for each in kinds]))


def classes(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    @st.composite
    def make(draw: st.DrawFn) -> Typed:
        found = draw(names(5))
        types = [draw(inner) for _ in found]
        make_kind = draw(st.sampled_from([_dataclass, _struct, _named_tuple, _typed_dict]))
        defaults = {name: draw(each.values) for name, each in zip(found, types, strict=True) if draw(st.booleans())}
        ordered = sorted(zip(found, types, strict=True), key=lambda pair: pair[0] in defaults)
        if make_kind is _named_tuple:
            ordered = [(name.lstrip("_") or "n", each) for name, each in ordered]
            defaults = {}
            if len({name for name, _ in ordered}) < len(ordered):
                make_kind = _dataclass
        if make_kind is _struct and any(name.startswith("__") and not name.endswith("__") for name in found):
            make_kind = _dataclass  # Python mangles such a name in a class, and msgspec does not find it
        name = named(draw(st.sampled_from(["Order", "Line", "order", "_Private"])))
        made: Typed = make_kind(name, dict(ordered), defaults)
        return made

    return make()


def _dataclass(name: str, types: dict[str, Typed], defaults: dict[str, Any]) -> Typed:
    fields = [
        (key, each.kind, field(default_factory=partial(defaults.get, key))) if key in defaults else (key, each.kind)
        for key, each in types.items()
    ]
    kind = make_dataclass(name, fields)
    return Typed(kind, st.builds(kind, **{key: each.values for key, each in types.items()}))


def _struct(name: str, types: dict[str, Typed], defaults: dict[str, Any]) -> Typed:
    fields = [
        (key, each.kind, msgspec.field(default_factory=partial(defaults.get, key)))
        if key in defaults
        else (key, each.kind)
        for key, each in types.items()
    ]
    kind = msgspec.defstruct(name, fields, rename="upper", array_like=len(fields) == 2)
    return Typed(kind, st.builds(kind, **{key: each.values for key, each in types.items()}))


def _named_tuple(name: str, types: dict[str, Typed], defaults: dict[str, Any]) -> Typed:
    kind = typing.NamedTuple(name, [(key, each.kind) for key, each in types.items()])  # type: ignore[misc]
    return Typed(kind, st.builds(kind, **{key: each.values for key, each in types.items()}))


def _typed_dict(name: str, types: dict[str, Typed], defaults: dict[str, Any]) -> Typed:
    hints = {key: typing.NotRequired[each.kind] if key in defaults else each.kind for key, each in types.items()}
    kind = typing.TypedDict(name, hints)  # type: ignore[misc]
    required = {key: each.values for key, each in types.items() if key not in defaults}
    optional = {key: each.values for key, each in types.items() if key in defaults}
    return Typed(kind, st.fixed_dictionaries(required, optional=optional))


def _list(inner: Typed) -> Typed:
    return Typed(list[inner.kind], st.lists(inner.values, max_size=3))  # type: ignore[name-defined]


def _map(inner: Typed) -> Typed:
    return Typed(dict[str, inner.kind], st.dictionaries(st.sampled_from("abc"), inner.values, max_size=3))  # type: ignore[name-defined]


def _numbered(inner: Typed) -> Typed:
    return Typed(dict[int, inner.kind], st.dictionaries(st.integers(-9, 9), inner.values, max_size=3))  # type: ignore[name-defined]


def _pair(inner: Typed) -> Typed:
    return Typed(tuple[inner.kind, bool], st.tuples(inner.values, st.booleans()))  # type: ignore[name-defined]


def _optional(inner: Typed) -> Typed:
    return Typed(inner.kind | None if inner.kind is not Any else Any, st.none() | inner.values)


WRAPPERS: list[Callable[[Typed], Typed]] = [_list, _map, _numbered, _pair, _optional]

simple = st.sampled_from(LEAVES) | enums() | unions() | tagged()


def wrapped(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    return classes(inner) | st.tuples(st.sampled_from(WRAPPERS), inner).map(lambda pair: pair[0](pair[1]))


types = st.recursive(simple, wrapped, max_leaves=8)

checked = st.recursive(st.sampled_from(LEAVES[:7]) | enums(), wrapped, max_leaves=8)
"""Types of which a message checks most parts completely."""

random_types = settings(
    max_examples=int(os.environ.get("GRPC_EXAMPLES", "60")),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
"""For tests with types and their values: a smaller example is worth less than the minutes for it."""
