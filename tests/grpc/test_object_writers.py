"""Objects as messages: the same bytes as by plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rpc_cases import codec_of
from rpc_types import Typed, checked, random_types, types
from tinysvc.core.errors import UnencodableResult
from tinysvc.grpc.codec import plain_value
from tinysvc.grpc.function_source import Unfit
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.object_writers import ObjectWriter
from tinysvc.grpc.plain_writers import PlainWriters


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Unhashable(Enum):
    A = "a"
    B = "b"

    def __eq__(self, other: object) -> bool:
        return self is other


class AllEqual(Enum):
    A = "a"
    B = "b"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


class Text(str): ...


@dataclass
class Line:
    name: str
    price: float = 1.5
    color: Color | None = None


@dataclass
class Special(Line):
    more: int = 3


class Struct(msgspec.Struct, rename="camel"):
    first_line: Line
    by_name: dict[str, Line]
    counts: dict[int, int]
    octets: tuple[bytes, ...] = ()
    at: datetime | None = None
    took: timedelta = timedelta()
    matrix: list[list[float]] = []
    truths: set[bool] | None = None


LINE = Line("ä", 0.5, Color.BLUE)
STRUCT = Struct(LINE, {"a": LINE}, {1: -1}, (b"\xff", b""), datetime(2026, 1, 1, tzinfo=UTC), timedelta(-1), [[1.0]])


def both_ways(annotation: Any) -> tuple[Any, Any]:
    """The functions that write a result directly, and by plain values. Unfit if there is no direct way."""
    codec = codec_of(annotation)
    shape: Any = codec.parts.reply
    kind = message_class(codec.parts.files, f"shop.{shape.name}")
    writer, write = ObjectWriter(codec.parts.files), PlainWriters(codec.parts.files).message(shape)
    if codec.parts.is_bare:
        make = writer.only_field(shape.slots[0], annotation)
        return (
            lambda value: kind(**make(value)).SerializeToString(deterministic=True),
            lambda value: kind(**write({"value": plain_value(value)})).SerializeToString(deterministic=True),
        )
    make = writer.message(shape, annotation)
    return (
        lambda value: kind(**make(value)).SerializeToString(deterministic=True),
        lambda value: kind(**write(plain_value(value))).SerializeToString(deterministic=True),
    )


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Line, LINE),
        (Line, Line("")),
        (Line, Line("a", None)),  # type: ignore[arg-type]  # is left out
        (Struct, STRUCT),
        (Struct, Struct(LINE, {}, {}, truths={True})),
        (list[Struct], [STRUCT, STRUCT]),
        (dict[str, Line], {"a": LINE}),
        (float, 1),
        (list[float], [1, 2.5]),
        (Annotated[int, "x"] | None, None),
        (frozenset[Color], frozenset(Color)),
    ],
)
def test_object_is_written_as_by_plain_values(annotation: Any, value: Any) -> None:
    directly, plainly = both_ways(annotation)
    assert directly(value) == plainly(value)


@random_types
@given(data=st.data())
def test_random_types_are_written_as_by_plain_values(data: st.DataObject) -> None:
    chosen: Typed = data.draw(checked | types)
    try:
        directly, plainly = both_ways(chosen.kind)
    except (Unfit, TypeError):  # msgspec does not read the type
        assume(False)
    for _ in range(3):
        value = data.draw(chosen.values)
        assert directly(value) == plainly(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Line, Special("a", 2.5)),
        (Line, {"name": "a", "price": 2.5}),
        (Line, Line(Text("a"), numpy.float64(2.5))),
        (list[Line], (Line("a"),)),
        (list[Line], [{"name": "a"}]),
        (list[int], numpy.array([1, 2])),
        (dict[str, int], {Text("a"): 1}),
        (dict[int, int], {"1": 2}),
        (Color, "red"),
        (list[Color], ["red", Color.BLUE]),
    ],
)
def test_value_of_another_type_is_written_by_plain_values(annotation: Any, value: Any) -> None:
    directly, plainly = both_ways(annotation)
    with pytest.raises(Exception):  # noqa: B017 - its kind does not matter
        directly(value)
    assert codec_of(annotation).encode_result(value) == plainly(value)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (Line(7), "at name, .* a text was expected, and 7 came"),  # type: ignore[arg-type]
        (Line(b"a"), "at name, .* a text was expected"),  # type: ignore[arg-type]
        (Line("\ud800"), "at name, .* half of a surrogate pair"),
        (Line("a", True), "at price, .* a number was expected, and True came"),
        (Line("a", 1.0, "green"), "at color, .* a value of Color was expected"),  # type: ignore[arg-type]
        (None, "null came"),
        (object(), "return a dict or a dataclass"),
    ],
)
def test_fault_has_its_place(value: Any, detail: str) -> None:
    with pytest.raises(UnencodableResult, match=detail):
        codec_of(Line).encode_result(value)


def test_argument_that_is_left_out_takes_its_default() -> None:
    codec = codec_of(int, default=5)
    assert codec.encode_arguments({}) == b""
    assert codec.decode_arguments(codec.encode_arguments({"value": 0})) == {"value": 0}
    with pytest.raises(UnencodableResult, match=r"value of .* is missing"):
        codec_of(int).encode_arguments({})


class Pair(NamedTuple):
    x: int


class Terse(msgspec.Struct, omit_defaults=True):
    x: int = 3


@dataclass
class Tree:
    children: list[Tree] = field(default_factory=list)


@pytest.mark.parametrize(
    "annotation",
    [
        Pair,
        Terse,
        Tree,
        int | str,
        list[int | str],
        tuple[int, str],
        Any,
        dict[Color, int],
        Annotated[int, msgspec.Meta(ge=1)],
    ],
)
def test_type_that_needs_plain_values(annotation: Any) -> None:
    with pytest.raises(Unfit):
        both_ways(annotation)


@pytest.mark.parametrize(
    "value", [Unhashable.A, Unhashable.B, AllEqual.A, AllEqual.B, [AllEqual.A, AllEqual.B], {"a": Unhashable.B}]
)
def test_enum_with_a_comparison_of_its_own(value: Any) -> None:
    first = value[0] if isinstance(value, list) else value["a"] if isinstance(value, dict) else value
    kind: Any = type(first)
    if value is not first:
        kind = list[kind] if isinstance(value, list) else dict[str, kind]
    codec = codec_of(kind)
    assert str(codec.decode_result(codec.encode_result(value))) == str(value)
    assert str(codec.decode_arguments(codec.encode_arguments({"value": value}))) == str({"value": value})
