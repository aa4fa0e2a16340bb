"""core/fast_encoders.py: a fast encoder writes the same as the table, and never omits a field."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from tinysvc.core.encoding import json_bytes
from tinysvc.core.fast_encoders import can_encode, can_encode_all, fast_encoder_for

T = TypeVar("T")


class Size(enum.Enum):
    SMALL = "s"


@dataclass
class Point:
    x: int
    y: float


@dataclass
class Line:
    points: list[Point]
    size: Size | None


@dataclass
class Item:
    name: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


@dataclass
class Basket:
    items: list[Item]


@dataclass
class Node:
    children: list[Node]
    name: str = "leaf"


@dataclass(slots=True)
class Slotted:
    x: int
    y: int = 2


@dataclass
class Hidden:
    _secret: int


@dataclass
class Caching:
    x: int

    @cached_property
    def twice(self) -> int:
        return 2 * self.x


@dataclass
class Counting:
    x: int

    def __post_init__(self) -> None:
        self.more = 1


@dataclass
class Anything:
    value: Any


@dataclass
class Page(Generic[T]):
    items: list[T]


@dataclass
class Unset:
    x: int | msgspec.UnsetType = msgspec.UNSET


@dataclass
class Base:
    x: int


@dataclass
class Derived(Base):
    y: int = 2


@dataclass
class Holder:
    base: Base


class Struct(msgspec.Struct):
    x: int
    size: Size = Size.SMALL


class Holding(msgspec.Struct):
    item: Item


@pytest.mark.parametrize("kind", [Point, Line, Item, Slotted, Struct])
def test_class_has_a_fast_encoder(kind: type) -> None:
    assert fast_encoder_for(kind) is not None


@pytest.mark.parametrize(
    "kind", [Basket, Node, Hidden, Caching, Counting, Anything, Page, Unset, Holding, dict, list, int, type(None)]
)
def test_class_has_no_fast_encoder(kind: type) -> None:
    assert fast_encoder_for(kind) is None


ITEM = b'{"name":"a","count":1,"tags":[]}'
decoded = msgspec.json.Decoder(Item).decode(b'{"name":"a"}')
cached = Caching(1)
assert cached.twice == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1, 2.0), b'{"x":1,"y":2.0}'),
        ([Point(1, float("nan"))] * 2, b'[{"x":1,"y":null},{"x":1,"y":null}]'),
        (Line([Point(1, 2.0)], Size.SMALL), b'{"points":[{"x":1,"y":2.0}],"size":"s"}'),
        (Item("a"), ITEM),
        (decoded, ITEM),
        ([decoded], b"[%b]" % ITEM),
        ([Item("a"), decoded], b"[%b,%b]" % (ITEM, ITEM)),
        ([Point(1, 2.0), decoded], b'[{"x":1,"y":2.0},%b]' % ITEM),
        ([Basket([decoded])], b'[{"items":[%b]}]' % ITEM),
        ({"items": [decoded]}, b'{"items":[%b]}' % ITEM),
        ([[decoded]], b"[[%b]]" % ITEM),
        (Anything(decoded), b'{"value":%b}' % ITEM),
        (Page([decoded]), b'{"items":[%b]}' % ITEM),
        (Holding(decoded), b'{"item":%b}' % ITEM),
        (Holder(Base(1)), b'{"base":{"x":1}}'),
        (Holder(msgspec.convert({"x": 1}, Derived)), b'{"base":{"x":1,"y":2}}'),
        (
            msgspec.convert({"children": [{"children": []}], "name": "root"}, Node),
            b'{"children":[{"children":[],"name":"leaf"}],"name":"root"}',
        ),
        (Slotted(1), b'{"x":1,"y":2}'),
        (msgspec.convert({"x": 1}, Slotted), b'{"x":1,"y":2}'),
        (Hidden(1), b'{"_secret":1}'),
        (cached, b'{"x":1}'),
        (Counting(1), b'{"x":1}'),
        (Unset(), b"{}"),
        ([Struct(1), Struct(2)], b'[{"x":1,"size":"s"},{"x":2,"size":"s"}]'),
        ([Struct({decoded.count}), Point(1, 2.0)], b'[{"x":[1],"size":"s"},{"x":1,"y":2.0}]'),  # type: ignore[arg-type]
    ],
)
def test_every_field_is_written_once(value: Any, expected: bytes) -> None:
    assert json_bytes(value) == expected


def test_list_with_one_incomplete_value_uses_the_table() -> None:
    shape = fast_encoder_for(Item)
    assert shape is not None
    assert can_encode(Item("a"), shape)
    assert not can_encode(decoded, shape)
    assert can_encode_all([Item("a"), Item("b")], shape)
    assert not can_encode_all([Item("a"), decoded], shape)
    assert not can_encode_all([Item("a"), Point(1, 2.0)], shape)


def test_inner_class_with_subclasses_uses_the_table() -> None:
    shape = fast_encoder_for(Holder)
    assert shape is not None
    assert not can_encode(Holder(Base(1)), shape)
    assert not can_encode_all([Holder(Base(1))], shape)
