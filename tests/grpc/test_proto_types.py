"""Types as messages: every type comes back as it was sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag
from ipaddress import IPv4Address
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar

import attrs
import msgspec
import numpy
import pytest
from pydantic import BaseModel, ConfigDict, HttpUrl, computed_field
from pydantic import Field as ModelField
from typing_extensions import TypeAliasType
from typing_extensions import TypedDict as TypedDictOfExtensions

from rpc_cases import codec_of, handler_of, schema_of, sent
from tinysvc import ConfigurationError, Event
from tinysvc.grpc.field import Field
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.shapes import VALUE, Leaf

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


class Kind(BaseModel):
    kind: Literal["a"] = "a"
    x: int


class OtherKind(BaseModel):
    kind: Literal["b"] = "b"
    x: int


class Web(BaseModel):
    url: HttpUrl
    address: IPv4Address
    either: Kind | OtherKind = ModelField(discriminator="kind")


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int
    height: int = ModelField(2, alias="Height")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width * self.height


class ModelPage(BaseModel, Generic[T]):
    items: list[T]


@dataclass
class Holder(Generic[T]):
    one: T
    all: list[T]


class Generated(TypedDictOfExtensions, Generic[T]):
    x: T


class Access(IntFlag):
    READ = 1
    WRITE = 2


Json = TypeAliasType("Json", "str | int | list[Json] | dict[str, Json]")
Nested = TypeAliasType("Nested", "list[Nested]")
UserId = NewType("UserId", int)


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
        (Kind | OtherKind, OtherKind(x=1)),
        (list[Kind | OtherKind], [OtherKind(x=1), Kind(x=2)]),
        (Web, Web(url=HttpUrl("http://a/b"), address=IPv4Address("1.2.3.4"), either=OtherKind(x=1))),
        (ModelPage[int], ModelPage[int](items=[1])),
        (Computed, Computed(width=3, Height=2)),
        (Holder[str | None], Holder(None, ["a", None])),
        (Holder[Holder[int]], Holder(Holder(1, []), [])),
        (Generated[int], {"x": 1}),
        (Access, Access.WRITE),
        (Json, {"a": [1, "x", {"b": []}]}),
        (Nested, [[], [[]]]),
        (list[UserId], [UserId(7)]),
        (int | float, 3.5),
        (float | int, 3),
        (Line | list[Line] | None, [Line("a")]),
        (int | Literal["a"], "a"),
        (str | list[str] | dict[str, int], {"a": 1}),
        (tuple[()], ()),
        (memoryview, memoryview(b"x")),
        (Event, Event("a", id="3")),
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
        (
            TypedDict("Dashed", {"a-b": int}),  # type: ignore[operator]
            "Dashed.a-b: 'a-b' is no name for a field",
        ),
        (make_dataclass("Größe", [("x", int)]), "name the class in ASCII"),
        (Enum("Unit", [("Ä", "a")]), "Unit.Ä has no value of an enum"),
    ],
)
def test_type_without_a_mapping_is_refused_at_start_up(annotation: Any, detail: str) -> None:
    place = r"handle \(.*rpc_cases.py:.*cannot be served over gRPC: its result: "
    with pytest.raises(ConfigurationError, match=f"{place}.*{detail}"):
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


@pytest.mark.parametrize(
    ("annotation", "detail"),
    [
        (Annotated[datetime, msgspec.Meta(tz=False)], "leave out tz=False"),
        (Annotated[int | str, Field(7)], "one number to the several fields of a union"),
    ],
)
def test_parameter_without_a_mapping_is_refused_at_start_up(annotation: Any, detail: str) -> None:
    with pytest.raises(ConfigurationError, match=f"its parameter value: .*{detail}"):
        schema_of(handler_of(annotation))


def test_computed_field_is_in_the_message() -> None:
    codec = codec_of(Computed)
    reply = message_class(codec.parts.files, "shop.Computed").FromString(
        codec.encode_result(Computed(width=3, Height=2))
    )
    assert (reply.width, reply.height, reply.area) == (3, 2, 6)


def test_model_that_writes_another_name_than_it_reads() -> None:
    class Written(BaseModel):
        name: int = ModelField(serialization_alias="written")

    assert sent(Written, Written(name=3)) == Written(name=3)


def test_results_of_other_libraries_are_converted_as_for_json() -> None:
    codec = codec_of(int, result=dict[str, list[float]])
    assert codec.decode_result(codec.encode_result({"a": numpy.array([1.0, 2.0])})) == {"a": [1.0, 2.0]}
    codec = codec_of(int, result=numpy.ndarray)
    assert codec.parts.reply.slots[0].kind == Leaf(VALUE)  # type: ignore[union-attr]
    data = codec.encode_result(numpy.array([[1, 2]]))
    assert message_class(codec.parts.files, "shop.HandleReply").FromString(data).value.list_value[0][1] == 2
