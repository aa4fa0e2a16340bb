"""The fields of classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import pytest
from pydantic import AliasChoices, BaseModel, computed_field
from pydantic import Field as ModelField

from tinysvc.grpc.class_fields import REQUIRED, UNKNOWN, fields_of
from tinysvc.grpc.field import Field

T = TypeVar("T")


@dataclass
class Plain:
    a: int
    b: str = "x"
    c: list[int] = field(default_factory=list)
    d: list[int] = field(default_factory=lambda: [1])


class Renamed(msgspec.Struct, rename="camel", tag="R"):
    first_name: str


class Position(msgspec.Struct, array_like=True):
    x: int


class Pair(NamedTuple):
    a: int
    b: str = "x"


class Parts(TypedDict):
    a: int
    b: NotRequired[str]


@attrs.define
class Attrs:
    a: int
    b: int = 2


class Model(BaseModel):
    a: int = ModelField(alias="A")
    b: list[int] = []
    c: str | None = None


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class NumberPage(Page[int]):
    count: int


@dataclass
class Holder(Generic[T]):
    one: T


@dataclass
class Holders(Holder[list[T]], Generic[T]):
    two: T


class ModelPage(BaseModel, Generic[T]):
    items: list[T]


class NumberModels(ModelPage[int]):
    pass


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            Plain,
            [
                ("a", "a", int, REQUIRED),
                ("b", "b", str, "x"),
                ("c", "c", list[int], []),
                ("d", "d", list[int], UNKNOWN),
            ],
        ),
        (Renamed, [("first_name", "firstName", str, REQUIRED)]),
        (Position, [("x", "x", int, REQUIRED)]),
        (Pair, [("a", "a", int, REQUIRED), ("b", "b", str, "x")]),
        (Parts, [("a", "a", int, REQUIRED), ("b", "b", str, UNKNOWN)]),
        (Attrs, [("a", "a", int, REQUIRED), ("b", "b", int, 2)]),
        (Model, [("a", "A", int, REQUIRED), ("b", "b", list[int], []), ("c", "c", str | None, None)]),
        (Page[int], [("items", "items", list[int], REQUIRED)]),
        (NumberPage, [("items", "items", list[int], REQUIRED), ("count", "count", int, REQUIRED)]),
        (Holders[int], [("one", "one", list[int], REQUIRED), ("two", "two", int, REQUIRED)]),
        (NumberModels, [("items", "items", list[int], REQUIRED)]),
        (ModelPage[int], [("items", "items", list[int], REQUIRED)]),
    ],
)
def test_fields(kind: type, expected: list[tuple[str, str, type, object]]) -> None:
    found = fields_of(kind)
    assert found is not None
    assert [tuple(each)[:4] for each in found.fields] == expected


def test_documents_of_a_class() -> None:
    found = [fields_of(each) for each in (Plain, Renamed, Position, Pair)]
    assert [(each.plain, each.tag) for each in found if each] == [
        ("object", None),
        ("object", ("type", "R")),
        ("array", None),
        ("array", None),
    ]
    assert fields_of(int) is None


def test_model_writes_other_names_than_it_reads() -> None:
    class Written(BaseModel):
        a: int = ModelField(validation_alias=AliasChoices("x", "y"), serialization_alias="z")

        @computed_field(alias="Sum")  # type: ignore[prop-decorator]
        @property
        def total(self) -> int:
            return self.a

    found = fields_of(Written)
    assert found is not None
    assert [(each.key, each.written, each.is_computed) for each in found.fields] == [
        ("x", "z", False),
        ("total", "Sum", True),
    ]


def test_number_of_a_field_of_a_model() -> None:
    class Numbered(BaseModel):
        a: Annotated[int, Field(7)]

    found = fields_of(Numbered)
    assert found is not None
    assert found.fields[0].annotation == Annotated[int, Field(7)]
