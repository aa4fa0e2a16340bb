"""mismatches.py: every place with a mismatch."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Annotated, Any, NamedTuple, TypedDict

import attrs
import msgspec
import pytest

from tinysvc.binding.mismatches import MAX_MISMATCHES, mismatches


@dataclasses.dataclass
class Plain:
    a: int
    b: str


class Struct(msgspec.Struct):
    a: int
    b: str


class Typed(TypedDict):
    a: int
    b: str


@attrs.define
class Attrs:
    a: int
    b: str


class Renamed(msgspec.Struct, rename="camel"):
    one_name: int
    other_name: int = 0


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    age: int
    name: str


@dataclasses.dataclass
class Checked:
    a: int

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError("a is negative")


def found(value: Any, annotation: Any, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert(value, annotation, strict=options.get("strict", True))
    return mismatches(value, annotation, raised.value, **options)


@pytest.mark.parametrize("kind", [Plain, Struct, Typed, Attrs])
def test_mismatch_of_every_field(kind: Any) -> None:
    wrong = [("$.a", "Expected `int`, got `str`"), ("$.b", "Expected `str`, got `int`")]
    assert found({"a": "x", "b": 1}, kind) == wrong
    assert found([{"a": 1, "b": "x"}, {"a": "x", "b": 1}], list[kind]) == [
        (place.replace("$", "$[1]"), detail) for place, detail in wrong
    ]
    assert found({}, kind) == [("$", f"Object missing required field `{name}`") for name in "ab"]
    assert found({"k": {"a": "x", "b": 1}}, dict[str, kind])[0][0] == "$.k.a"
    assert found({"a": "x", "b": 1}, kind | None) == wrong


class Row(msgspec.Struct, array_like=True):
    x: int
    y: int
    z: str = "z"


class TaggedRow(msgspec.Struct, array_like=True, tag="row"):
    x: int


class Pair(NamedTuple):
    x: int
    y: float = 0.0


def test_mismatches_in_arrays() -> None:
    assert [place for place, _ in found(["a", 1, 2], Row)] == ["$[0]", "$[2]"]
    assert [place for place, _ in found([["a", "b"], ["a"]], list[Pair])] == ["$[0][0]", "$[0][1]", "$[1][0]"]
    assert [place for place, _ in found([["row", "a"], ["row", "b"]], list[TaggedRow])] == ["$[0][1]", "$[1][1]"]
    assert [place for place, _ in found(["a", "b"], Row | None)] == ["$[0]", "$[1]"]


@pytest.mark.parametrize("kind", [Row, tuple[int, int]])
def test_array_that_is_too_short(kind: Any) -> None:
    (place, _), (whole, detail) = found(["a"], kind)
    assert (place, whole) == ("$[0]", "$")
    assert "length 2, got 1" in detail


def test_places_use_the_names_of_the_document() -> None:
    assert [place for place, _ in found({"oneName": "x", "otherName": "y"}, Renamed)] == ["$.oneName", "$.otherName"]


def test_tag_selects_the_member_of_a_union() -> None:
    assert [place for place, _ in found({"type": "Dog", "age": "x", "name": 1}, Cat | Dog)] == ["$.age", "$.name"]
    assert found({"type": "Cow"}, Cat | Dog) == [("$.type", "Invalid value 'Cow'")]


def test_errors_of_post_init_for_every_item() -> None:
    assert found([{"a": -1}, {"a": 1}, {"a": -2}], list[Checked]) == [
        ("$[0]", "a is negative"),
        ("$[2]", "a is negative"),
    ]


def test_bounds_of_the_whole_value() -> None:
    assert found([1, 2], Annotated[list[int], msgspec.Meta(max_length=1)]) == [("$", "Expected `array` of length <= 1")]


def test_number_of_mismatches_is_limited() -> None:
    assert len(found(["x"] * 1000, list[int])) == MAX_MISMATCHES


def test_date_in_a_query_with_a_plus() -> None:
    says = "Invalid RFC3339 encoded datetime, got '2026-01-31T10:00:00 02:00'"
    value = "2026-01-31T10:00:00 02:00"
    assert found(value, datetime.datetime) == [("$", says)]
    ((_, detail),) = found(value, datetime.datetime, strict=False, is_query=True)
    assert detail == says + "; a '+' in a query stands for a space: write it as %2B"
