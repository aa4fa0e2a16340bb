"""Messages as objects: exactly those that msgspec makes of plain values."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum, IntFlag
from functools import cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from rpc_cases import codec_of
from rpc_types import Typed, checked, random_types, types
from tinysvc import Field
from tinysvc.grpc.codec import Codec
from tinysvc.grpc.function_source import Unfit
from tinysvc.grpc.message_classes import message_class
from tinysvc.grpc.message_errors import BadMessage
from tinysvc.grpc.object_readers import ObjectReader, members
from tinysvc.grpc.plain_arguments import Parameter, PlainArguments
from tinysvc.grpc.shapes import EnumShape

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Line:
    name: str
    count: int = 7
    price: float | None = None
    color: Color = Color.RED


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    at: datetime
    took: timedelta = timedelta(seconds=1)
    lines: list[Line] = field(default_factory=list)


class Struct(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    first_line: Line
    others: list[Line] | None = None
    by_name: dict[str, Line] = {}
    levels: set[Level] = set()


class Plain:
    """Has an `__init__`, a `__new__` and a `__setattr__` that msgspec does not call."""

    def __new__(cls) -> Plain:
        raise AssertionError

    def __setattr__(self, name: str, value: object) -> None:
        raise AssertionError


@dataclass(init=False)
class WithoutInit(Plain):
    x: int


@dataclass
class Empty: ...


@dataclass
class Everything:
    number: int
    truth: bool
    text: Annotated[str, Field(9), "a remark"]
    octets: bytes
    frozen: Frozen
    struct: Struct
    empty: Empty
    anything: Any
    lists: list[list[int]]
    maybe: list[int | None]
    texts: tuple[str, ...]
    sets: frozenset[Color]
    numbers: dict[int, float]
    trees: dict[str, list[Struct]]
    other: Struct | None
    limit: float = 1.5


LINES = [Line("a"), Line("b", 0, 0.0, Color.BLUE)]
STRUCT = Struct(first_line=LINES[0], others=LINES, by_name={"x": LINES[1]}, levels={Level.LOW, Level.HIGH})
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = Everything(
    *(-1, True, "ä", b"\xff", Frozen(at=NOW, lines=LINES), STRUCT, Empty(), {"a": [1, None]}, [[1], []], [0, None]),
    *(("a", ""), frozenset(Color), {1: 0.5}, {"a": [STRUCT], "": []}, None, 2.5),
)


def both_ways(codec: Codec) -> tuple[Any, Any]:
    """The functions that read a request directly, and by plain values. Unfit if there is no direct way."""
    (slot,) = codec.parts.request.slots
    annotation = codec.parts.function.__annotations__["value"]
    reader = ObjectReader()
    reader.add(slot, annotation)
    return reader.arguments(), PlainArguments([Parameter(slot, annotation, inspect.Parameter.empty)]).read


def parsed(codec: Codec, data: bytes) -> Any:
    return message_class(codec.parts.files, "shop.HandleRequest").FromString(data)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Everything, EVERYTHING),
        (list[Struct], [STRUCT, Struct(first_line=LINES[1])]),
        (dict[str, Everything], {"a": EVERYTHING}),
        (Frozen | None, None),
        (set[int], {1, 2}),
        (Annotated[list[Annotated[Line, "x"]], "y"], LINES),
    ],
)
def test_object_is_read_as_by_plain_values(annotation: Any, value: Any) -> None:
    codec = codec_of(annotation)
    directly, plainly = both_ways(codec)
    message = parsed(codec, codec.encode_arguments({"value": value}))
    assert directly(message) == plainly(message) == {"value": value}
    assert repr(directly(message)) == repr(plainly(message))


@random_types
@given(data=st.data())
def test_random_types_are_read_as_by_plain_values(data: st.DataObject) -> None:
    chosen: Typed = data.draw(checked | types)
    try:
        codec = codec_of(chosen.kind)
        directly, plainly = both_ways(codec)
    except (Unfit, TypeError):  # msgspec does not read the type
        assume(False)
    for _ in range(3):
        value = data.draw(chosen.values)
        message = parsed(codec, codec.encode_arguments({"value": value}))
        found = directly(message)
        assert found == plainly(message) == {"value": value}
        assert repr(found) == repr(plainly(message))


@settings(max_examples=int(os.environ.get("GRPC_EXAMPLES", "200")), deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_bytes_of_a_stranger_are_read_as_by_plain_values(data: st.DataObject) -> None:
    codec, directly, plainly = _everything()
    changed = bytearray(codec.encode_arguments({"value": EVERYTHING}))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    try:
        message = parsed(codec, bytes(changed))
    except DecodeError:
        return
    expected, faults = outcome(plainly, message)
    found, are_refused = outcome(directly, message)
    assert repr(found) == repr(expected)  # NaN is not itself
    assert bool(are_refused) == bool(faults)
    if faults:
        _, named = outcome(codec.decode_arguments, bytes(changed))
        assert named == faults


def outcome(read: Any, message: Any) -> tuple[Any, Any]:
    """What a function returns, and the faults that it raises."""
    try:
        return read(message), None
    except Exception as error:
        return None, getattr(error, "faults", error)


@cache
def _everything() -> tuple[Codec, Any, Any]:
    codec = codec_of(Everything)
    return codec, *both_ways(codec)


@pytest.mark.parametrize(
    ("change", "place", "detail"),
    [
        ({"frozen": {"lines": [{"color": 1}, {"color": 9}]}}, "value.frozen.lines[3].color", "9 is no value of Color"),
        ({"struct": {"by_name": {"a": {"color": 9}}}}, "value.struct.by_name['a'].color", "9 is no value of Color"),
        ({"trees": {"a": {"value": [{}]}}}, "value.trees['a'].value[0].first_line", "is missing"),
        ({"frozen": {"at": {"seconds": 10**13}}}, "value.frozen.at", "is no time between the years 1 and 9999"),
        ({"anything": {"number_value": float("nan")}}, "value.anything", "nan is no number that JSON has"),
        ({"sets": [0]}, "value.sets[2]", "is missing"),
    ],
)
def test_fault_has_its_place(change: Any, place: str, detail: str) -> None:
    codec = codec_of(Everything)
    message = parsed(codec, codec.encode_arguments({"value": EVERYTHING}))
    message.MergeFrom(type(message)(value=change))
    with pytest.raises(BadMessage) as failed:
        codec.decode_arguments(message.SerializeToString())
    assert failed.value.faults == [(place, detail)]


def test_init_new_and_setattr_of_a_class_are_not_called() -> None:
    codec = codec_of(WithoutInit)
    message = parsed(codec, b"\x0a\x02\x08\x05")
    for read in both_ways(codec):
        made = read(message)["value"]
        assert type(made) is WithoutInit
        assert made.x == 5


def test_default_is_made_anew_for_each_object() -> None:
    codec = codec_of(list[Struct])
    directly, _ = both_ways(codec)
    first, second = directly(parsed(codec, codec.encode_arguments({"value": [STRUCT, STRUCT]})))["value"]
    assert first.others is not second.others


@dataclass
class Constrained:
    count: Annotated[int, msgspec.Meta(ge=1)]


@dataclass
class Checked:
    x: int

    def __post_init__(self) -> None:
        raise ValueError


@dataclass
class Tree:
    children: list[Tree]


@dataclass
class Page(Generic[T]):
    items: list[T]


@dataclass
class Computed:
    x: int = field(init=False, default=3)


@dataclass
class Derived(dict):  # type: ignore[type-arg]
    x: int


class Tagged(msgspec.Struct, tag=True):
    x: int


class Array(msgspec.Struct, array_like=True):
    x: int


class Pair(NamedTuple):
    x: int


class Document(TypedDict):
    x: int


class Access(IntFlag):
    READ = 1


@pytest.mark.parametrize(
    "annotation",
    [
        *(Constrained, Checked, Tree, Page[int], Computed, Tagged, Array, Pair, Document, Access),
        *(int | str, list[int | str], Literal["a"], tuple[int, str], Sequence[int], bytearray),
        *(dict[Color, int], dict[str, Constrained], list[Tree], Annotated[int, msgspec.Meta(ge=1)]),
    ],
)
def test_type_that_a_message_does_not_check_goes_by_plain_values(annotation: Any) -> None:
    with pytest.raises(Unfit):
        both_ways(codec_of(annotation))


def test_class_that_msgspec_reads_as_another_type_goes_by_plain_values() -> None:
    (slot,) = codec_of(Line).parts.request.slots
    with pytest.raises(Unfit):
        ObjectReader().add(slot, Derived)


def test_parameters_that_need_plain_values_do_not_hold_up_others() -> None:
    (slot,) = codec_of(Line).parts.request.slots
    (other,) = codec_of(Constrained).parts.request.slots
    reader = ObjectReader()
    with pytest.raises(Unfit):
        reader.add(other, Constrained)
    reader.add(slot, Line)
    codec = codec_of(Line)
    assert reader.arguments()(parsed(codec, codec.encode_arguments({"value": LINES[1]}))) == {"value": LINES[1]}


def test_enum_of_a_type_variable_goes_by_plain_values() -> None:
    with pytest.raises(Unfit):
        members(EnumShape("Color", []), TypeVar("AnyColor", bound=Color))
