"""schemas.py: schemas of single types. Whole documents are in tests/openapi."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

import attrs
import msgspec
import numpy
import pydantic
import pytest

from tinysvc.binding.schemas import ANYTHING, Schemas, with_default


@dataclass
class Tree:
    leaves: list[Tree] = field(default_factory=list)


class Struct(msgspec.Struct):
    """Said by its author."""

    x: int


@attrs.define
class Attrs:
    x: int


class Inner(pydantic.BaseModel):
    x: int


class Outer(pydantic.BaseModel):
    inner: Inner


class Node(pydantic.BaseModel):
    next: Node | None = None


def namesake(base: type) -> Any:
    """Another Inner."""
    return type("Inner", (base,), {"__annotations__": {"y": str}, "__module__": "elsewhere"})


class Unknown:
    pass


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize("kind", [Tree, Struct, Attrs, Outer])
def test_named_type_is_a_component(kind: type) -> None:
    schemas = Schemas([kind, list[kind]])  # type: ignore[valid-type]
    assert schemas.of(kind) == reference(kind.__name__)
    assert schemas.of(list[kind]) == {"type": "array", "items": reference(kind.__name__)}  # type: ignore[valid-type]
    assert schemas.components[kind.__name__]["type"] == "object"


class Tagged(msgspec.Struct, tag=True):
    at: datetime.datetime


class Other(msgspec.Struct, tag=True):
    at: str


class Row(msgspec.Struct, array_like=True):
    number: int
    at: datetime.datetime | None = None


@dataclass
class Times:
    at: Annotated[datetime.datetime, msgspec.Meta(description="When.")]
    day: datetime.date
    alarms: dict[str, list[datetime.time]]
    pair: tuple[int, datetime.datetime]
    either: int | Other | Tagged | None
    row: Row
    until: Annotated[datetime.datetime, msgspec.Meta(tz=False)] | None = None
    next: Times | None = None


def test_times_have_their_formats() -> None:
    schemas = Schemas([list[Times], datetime.datetime])
    found = schemas.components["Times"]["properties"]
    moment = {"type": "string", "format": "date-time"}
    assert schemas.of(datetime.datetime) == moment
    assert found["at"] == {**moment, "description": "When."}
    assert found["alarms"]["additionalProperties"]["items"] == {"type": "string", "format": "partial-time"}
    assert found["pair"]["prefixItems"][1] == found["until"]["anyOf"][0] == moment
    assert schemas.components["Row"]["prefixItems"][1]["anyOf"][0] == moment
    assert schemas.components["Tagged"]["properties"]["at"] == moment
    assert schemas.components["Other"]["properties"]["at"] == {"type": "string"}


def test_class_that_contains_itself() -> None:
    leaves = Schemas([Tree]).components["Tree"]["properties"]["leaves"]
    assert leaves["items"] == reference("Tree")


def test_models_in_models() -> None:
    components = Schemas([dict[str, Outer]]).components
    assert components["Outer"]["properties"]["inner"] == reference("Inner")
    assert components["Inner"]["properties"]["x"]["type"] == "integer"


def test_model_that_contains_itself() -> None:
    schemas = Schemas([Node])
    assert schemas.of(Node) == reference("Node")
    assert schemas.components["Node"]["properties"]["next"]["anyOf"][0] == reference("Node")


@pytest.mark.parametrize("base", [pydantic.BaseModel, msgspec.Struct])
def test_types_of_one_name_are_two_components(base: type) -> None:
    other = namesake(base)
    schemas = Schemas([Inner, other, Outer])
    found = [schemas.components[schemas.of(kind)["$ref"].rpartition("/")[2]] for kind in (Inner, other)]
    assert [list(each["properties"]) for each in found] == [["x"], ["y"]]
    assert schemas.components[schemas.of(Outer)["$ref"].rpartition("/")[2]]["properties"]["inner"] == schemas.of(Inner)


def test_generated_docstring_is_not_a_description() -> None:
    components = Schemas([Tree, Struct]).components
    assert "description" not in components["Tree"]
    assert components["Struct"]["description"] == "Said by its author."


@pytest.mark.parametrize("kind", [Unknown, list[Unknown], complex, Any])
def test_unknown_type_allows_any_value(kind: Any) -> None:
    assert Schemas([kind, int]).of(kind) == ANYTHING
    assert Schemas([int]).of(kind) == ANYTHING


def test_bounds_and_arrays() -> None:
    bounded = Annotated[int, msgspec.Meta(ge=1, description="How many.")]
    schemas = Schemas([bounded, numpy.ndarray])
    assert schemas.of(bounded) == {"type": "integer", "format": "int64", "minimum": 1, "description": "How many."}
    assert schemas.of(numpy.ndarray) == {"type": "array"}


def test_defaults() -> None:
    assert with_default({}, inspect.Parameter.empty) == {}
    assert with_default({}, Struct(1)) == {"default": {"x": 1}}
    assert with_default({}, Unknown()) == {}
    assert with_default({}, float("inf")) == {}


class First(msgspec.Struct, tag=1, array_like=True):
    at: datetime.datetime


class Second(msgspec.Struct, tag=2, array_like=True):
    at: datetime.time
    note: str = ""


class Third(msgspec.Struct, tag="third"):
    at: datetime.datetime | None = None


class Fourth(msgspec.Struct, tag="fourth", rename="camel"):
    was_at: list[datetime.datetime] | dict[str, datetime.datetime] | datetime.time


def test_formats_of_times_at_every_place() -> None:
    when, clock = {"type": "string", "format": "date-time"}, {"type": "string", "format": "partial-time"}
    schemas = Schemas([First | Second, Third | Fourth | None, tuple[str, datetime.datetime], set[int] | None])
    assert schemas.components["First"]["prefixItems"][1] == when
    assert schemas.components["Second"]["prefixItems"][1:] == [clock, {"type": "string", "default": ""}]
    assert schemas.components["Third"]["properties"]["at"]["anyOf"][0] == when
    many, by_name, one = schemas.components["Fourth"]["properties"]["wasAt"]["anyOf"]
    assert (many["items"], by_name["additionalProperties"], one) == (when, when, clock)
    assert schemas.of(tuple[str, datetime.datetime])["prefixItems"] == [{"type": "string"}, when]


T = TypeVar("T")


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


def test_generics_of_two_classes_of_one_name() -> None:
    one, other = (dataclasses.make_dataclass("Item", [(name, int)]) for name in ("a", "b"))
    one.__module__, other.__module__ = "one", "other"
    schemas = Schemas([Page[one], Page[other], int])  # type: ignore[valid-type]
    items = []
    for page in (Page[one], Page[other]):  # type: ignore[valid-type]
        name = schemas.of(page)["$ref"].rpartition("/")[2]
        item = schemas.components[name]["properties"]["items"]["items"]["$ref"].rpartition("/")[2]
        items += list(schemas.components[item]["properties"])
    assert items == ["a", "b"]
    assert schemas.of(int) == {"type": "integer", "format": "int64"}


# What generators of clients need


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    weight: float


def test_tagged_union_is_one_of() -> None:
    schemas = Schemas([Cat | Dog, list[Cat | Dog | None]])
    union = schemas.of(Cat | Dog)
    assert union["oneOf"] == [reference("Cat"), reference("Dog")]
    assert "anyOf" not in union
    assert schemas.of(list[Cat | Dog | None])["items"]["anyOf"] == [union, {"type": "null"}]
    assert schemas.components["Dog"]["properties"]["weight"] == {"type": "number", "format": "double"}


def test_tuple_has_no_schema_false() -> None:
    schemas = Schemas([tuple[int, int], tuple[int, str]])
    number = {"type": "integer", "format": "int64"}
    pair = {"type": "array", "minItems": 2, "maxItems": 2}
    assert schemas.of(tuple[int, int]) == {**pair, "prefixItems": [number, number], "items": number}
    assert schemas.of(tuple[int, str]) == {**pair, "prefixItems": [number, {"type": "string"}]}


def test_values_are_not_taken_for_schemas() -> None:
    example = {"type": "integer", "rate": 1}
    described = Annotated[dict[str, Any], msgspec.Meta(examples=[example])]
    assert Schemas([described]).of(described)["examples"] == [example]
