"""Types as messages: every type comes back as it was sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from pydantic import BaseModel

from rpc_cases import codec_of, handler_of, schema_of, sent
from tinysvc import ConfigurationError

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 0
    HIGH = 10


@dataclass
class Line:
    sku: str
    count: int = 1


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)
    left: Tree | None = None


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    bark: int


class Position(msgspec.Struct, array_like=True, tag="p"):
    x: int
    y: int | None = 3


class Pair(NamedTuple):
    a: int
    b: str = "x"


class Document(TypedDict):
    a: int
    b: NotRequired[list[int] | None]


@attrs.define
class Attrs:
    a: int
    b: list[Line] = attrs.field(factory=list)


class Model(BaseModel):
    at: datetime
    took: timedelta
    data: bytes
    number: Decimal
    colors: set[Color]
    other: Model | None = None


class Page(msgspec.Struct, Generic[T], rename="camel"):
    all_items: list[T]
    next_page: int | None = None


@dataclass
class Defaults:
    number: int | None = 5
    items: list[int] | None = None
    some: list[int] = field(default_factory=lambda: [1])
    union: int | str | None = "x"
    anything: Any = 7
    unset: int | msgspec.UnsetType = msgspec.UNSET


NOW = datetime(2026, 11, 29, 20, 0, 0, 123456, UTC)
MODEL = Model(at=NOW, took=timedelta(microseconds=-1), data=b"x", number=Decimal("1.50"), colors={Color.RED})


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, -(2**63)),
        (float, 0.1),
        (float, float("inf")),
        (bool, True),
        (str, "Grüße"),
        (str, ""),
        (bytes, b"\0\xff"),
        (datetime, NOW),
        (datetime, datetime(1, 1, 1, tzinfo=UTC)),
        (datetime, datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))),
        (timedelta, timedelta(days=-3, microseconds=7)),
        (timedelta, timedelta(microseconds=-1)),
        (date, date(2026, 1, 1)),
        (time, time(12, 30)),
        (uuid.UUID, uuid.UUID(int=7)),
        (Decimal, Decimal("1.50")),
        (Color, Color.BLUE),
        (Level, Level.LOW),
        (list[Level], [Level.HIGH, Level.LOW]),
        (Literal["a", "b"], "b"),
        (Literal["a", 1], 1),
        (Any, {"a": [1, 2.5, None, True, "x", {}, []]}),
        (Any, None),
        (list[Any], [None, [], {}]),
        (dict, {"a": {"b": 1}}),
        (int | None, None),
        (int | None, 0),
        (int | str, 7),
        (int | str | None, None),
        (list[int], []),
        (list[int] | None, None),
        (list[int] | None, []),
        (list[list[float]], [[1.0], []]),
        (list[int | None], [1, None]),
        (list[int | str], [1, "x"]),
        (Sequence[str], ["a"]),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (tuple[int, ...], (1, 2)),
        (tuple[int, str | None], (1, None)),
        (dict[str, int], {"a": 1, "": 0}),
        (dict[int, list[Line]], {1: [Line("a")], -2: []}),
        (dict[Color, int], {Color.RED: 1}),
        (dict[Level, int], {Level.HIGH: 1}),
        (dict[uuid.UUID, int], {uuid.UUID(int=7): 1}),
        (dict[float, int], {1.5: 1}),
        (Mapping[str, int | None], {"a": None, "b": 0}),
        (Line, Line("a", 0)),
        (Tree, Tree("a", [Tree("b")], Tree("c"))),
        (Cat | Dog, Dog(3)),
        (list[Cat | Dog], [Cat("a"), Dog(3)]),
        (Cat | Dog | None, None),
        (Position, Position(1)),
        (Position, Position(1, None)),
        (Pair, Pair(1)),
        (Document, {"a": 1}),
        (Document, {"a": 1, "b": None}),
        (Document, {"a": 1, "b": []}),
        (Attrs, Attrs(1, [Line("a")])),
        (Page[Line], Page([Line("a")], 2)),
        (Page[int], Page([1])),
        (Defaults, Defaults()),
        (Defaults, Defaults(None, [], [], None, None, 0)),
        (Model, MODEL),
        (list[Model], [MODEL, MODEL.model_copy(update={"other": MODEL})]),
        (Model | None, None),
    ],
)
def test_value_comes_back_as_it_was_sent(annotation: Any, value: Any) -> None:
    found = sent(annotation, value)
    assert found == value
    assert type(found) is type(value)


def test_default_of_a_parameter_fills_an_absent_field() -> None:
    codec = codec_of(int | None, default=5)
    assert codec.decode_arguments(b"") == {"value": 5}
    assert codec.decode_arguments(codec.encode_arguments({"value": None})) == {"value": None}
    assert codec.decode_arguments(codec.encode_arguments({"value": 0})) == {"value": 0}


@pytest.mark.parametrize(
    ("annotation", "detail"),
    [
        (dict[tuple[int, int], int], "use keys of text"),
        (complex, "has no type in protobuf"),
    ],
)
def test_type_without_a_mapping_is_refused_at_start_up(annotation: Any, detail: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"handle \(.*rpc_cases.py:.*its result: .*{detail}"):
        schema_of(handler_of(int, result=annotation))


def test_fields_whose_names_are_the_same_in_json_get_a_number() -> None:
    kind = make_dataclass("Alike", [("a_b", int), ("aB", int), ("x_int64", str), ("x", int | str)])
    (value,) = codec_of(kind).parts.request.slots
    assert [each.name for each in value.kind.fields()] == ["a_b", "aB_2", "x_int64", "x_int64_2", "x_string"]  # type: ignore[union-attr]
    assert sent(kind, kind(1, 2, "a", 3)) == kind(1, 2, "a", 3)


def test_values_of_an_enum_whose_names_are_the_same_to_protoc_get_a_number() -> None:
    kind = Enum("kind", [("A", "a"), ("a", "b"), ("KIND_A", "c"), ("UNSPECIFIED", "d")])
    (file,) = schema_of(handler_of(kind)).proto_files
    assert file.enums["Kind"].values == {"KIND_UNSPECIFIED": 0, "KIND_A": 1, "KIND_A_2": 2, "KIND_KIND_A": 3}
    assert [sent(kind, each) for each in kind] == list(kind)
