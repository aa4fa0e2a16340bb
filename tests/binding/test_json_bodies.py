"""json_bodies.py: JSON bodies as typed values, and their refusals."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from binding_cases import Item, Typed, bound
from tinysvc.binding.json_bodies import json_value
from tinysvc.binding.markers import Query
from tinysvc.core.errors import BindingError, ConfigurationError, HTTPError
from tinysvc.core.requests import Request


def test_class_with_the_methods_of_pydantic() -> None:
    class Model:
        """What binding asks of a pydantic class."""

        @classmethod
        def model_validate_json(cls, body: bytes) -> Model:
            if body == b'"bad"':
                error = ValueError("bad")
                error.errors = lambda: [{"loc": ("a", 1), "msg": "wrong"}]  # type: ignore[attr-defined]
                raise error
            return cls()

    def handler(model: Any) -> None: ...

    handler.__annotations__["model"] = Model
    assert isinstance(bound(handler, body=b"{}")["model"], Model)
    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'"bad"')
    assert raised.value.faults == [("$.a[1]", "wrong")]


class Model(pydantic.BaseModel):
    x: int


def test_types_that_contain_pydantic_models() -> None:
    def handler(models: list[Model]) -> None: ...
    def optional(model: Model | None = None) -> None: ...
    def mixed(models: list[Model | Request]) -> None: ...

    assert bound(handler, body=b'[{"x": 1}]') == {"models": [Model(x=1)]}
    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'[{"x": 1}, {}]')
    assert raised.value.faults == [("$[1].x", "Field required")]

    def beside(model: Model, n: Annotated[int, Query()]) -> None: ...

    with pytest.raises(BindingError) as raised:
        bound(beside, "n=x", body=b"{}")
    assert raised.value.faults == [("$.x", "Field required"), ("query.n", "Expected `int`, got 'x'")]
    assert bound(optional) == {"model": None}
    assert bound(optional, body=b'{"x": 1}') == {"model": Model(x=1)}
    with pytest.raises(ConfigurationError, match=r"cannot read a value of type .* for models; use a dataclass"):
        bound(mixed)


class Body(msgspec.Struct):
    values: list[int]


class BodyModel(pydantic.BaseModel):
    values: list[float]


KINDS: list[Any] = [Item, Body, Typed, dict, list[Body], BodyModel, list[BodyModel]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"name": 1, "values": ["x"], ', "truncated"),
        (b'{"values": [NaN]}', "not JSON"),
        (b'{"values": [Infinity]}', "not JSON"),
        (b'{"values": [1]} x', "trailing"),
        ('{"values": [1]}'.encode("utf-16"), "UTF-16"),
        ('{"values": [1]}'.encode("utf-16-be"), "UTF-16"),
        (b'{"values": ["\xff"]}', "not JSON"),
    ],
)
def test_malformed_json_gets_400_for_every_type(kind: Any, body: bytes, says: str) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    with pytest.raises(HTTPError, match=says) as raised:
        bound(handler, body=body)
    assert raised.value.status == 400


@pytest.mark.parametrize("kind", [Body, dict, BodyModel])
def test_byte_order_mark_is_ignored(kind: Any) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    value = bound(handler, body=b'\xef\xbb\xbf{"values": [1]}')["value"]
    assert (value["values"] if kind is dict else value.values) == [1]


LONG = b"1" * 5000


@pytest.mark.parametrize("kind", [dict, BodyModel, dict[str, list[float]], dict[str, Any]])
@pytest.mark.parametrize("number", [b"1e999", b"-1E999", LONG])
def test_numbers_out_of_range_get_their_place(kind: Any, number: bytes) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'\xef\xbb\xbf{"values": [1, ' + number + b", 2, 1e400]}")
    assert raised.value.faults == [("$.values[1]", "Number out of range"), ("$.values[3]", "Number out of range")]


def test_numbers_out_of_range_beside_other_faults() -> None:
    def handler(items: list[Item]) -> None: ...

    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'[{"name": "a", "price": 1e999}, {"name": 2, "price": 1, "tags": [1e999]}]')
    assert raised.value.faults == [
        ("$[0].price", "Number out of range"),
        ("$[1].tags[0]", "Number out of range"),
        ("$[1].name", "Expected `str`, got `int`"),
    ]


@pytest.mark.parametrize("rest", [b"", b', "x": NaN}', b', "x": "\xff"}'])
@pytest.mark.parametrize("kind", [dict, Item, BodyModel])
def test_malformed_json_behind_a_number_out_of_range_gets_400(kind: Any, rest: bytes) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    with pytest.raises(HTTPError, match="not JSON") as raised:
        bound(handler, body=b'{"price": 1e999' + rest)
    assert raised.value.status == 400


@pytest.mark.parametrize(("content_type", "status"), [("text/plain", 415), ("application/json; charset=utf-8", 0)])
def test_content_type_of_json_body(content_type: str, status: int) -> None:
    def handler(item: Item) -> None: ...

    arguments: Any = ("", {"content-type": content_type})
    if not status:
        assert bound(handler, *arguments, body=b'{"name": "x", "price": 1}') == {"item": Item("x", 1.0)}
        return
    with pytest.raises(HTTPError, match="must be JSON") as raised:
        bound(handler, *arguments, body=b"{}")
    assert (raised.value.status, raised.value.headers) == (status, [("accept", "application/json")])


def test_messagepack_is_read_by_its_content_type() -> None:
    def handler(item: Item) -> None: ...

    body = msgspec.msgpack.encode({"name": "x", "price": 1})
    arguments: Any = ("", {"content-type": "application/msgpack"})
    assert bound(handler, *arguments, body=body) == {"item": Item("x", 1.0)}
    with pytest.raises(HTTPError, match="is not MessagePack"):
        bound(handler, *arguments, body=b"\xc1")


@pytest.mark.parametrize("kind", [Body, BodyModel])
def test_message_is_read_like_a_body(kind: Any) -> None:
    assert json_value('{"values": [1]}', kind).values == [1]
    with pytest.raises(ValueError, match=r"^\$\.values\[0\]: "):
        json_value(b'{"values": ["x"]}', kind)
    with pytest.raises(ValueError, match="the message is not JSON"):
        json_value("{", kind)


def test_type_of_a_message_is_not_written_out_for_each_message() -> None:
    written = 0

    class Counted(type):
        def __repr__(cls) -> str:
            nonlocal written
            written += 1
            return "Message"

    @dataclasses.dataclass
    class Message(metaclass=Counted):
        n: int

    for kind in (Message, list[Message]):
        json_value(b'{"n": 1}' if kind is Message else b'[{"n": 1}]', kind)
        written = 0
        assert json_value(b'{"n": 2}' if kind is Message else b'[{"n": 2}]', kind) in (Message(2), [Message(2)])
        assert written == 0


def test_type_of_a_message_need_not_be_hashable() -> None:
    assert json_value("[5]", list[Annotated[int, {"a": "note"}]]) == [5]


def test_message_that_fits_two_models_becomes_the_first_one() -> None:
    class Other(pydantic.BaseModel):
        n: int

    class Another(pydantic.BaseModel):
        n: int

    for kind, first in ((Other | Another, Other), (Another | Other, Another), (Other | Another, Other)):
        assert type(json_value('{"n": 1}', kind)) is first
