"""binding.py: signatures and results, without a server."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from tinysvc.binding.binder import Binder, HeadCheck, open_resource
from tinysvc.binding.markers import ApiKey, Cookie, Header, Query
from tinysvc.core.errors import BindingError, ConfigurationError, HTTPError
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Item:
    name: str
    price: float
    tags: list[str] = dataclasses.field(default_factory=list)


class Typed(TypedDict):
    a: int


def request(query: str = "", headers: dict[str, str] | None = None) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request("POST", "/", query, Headers(raw))


def bound(function: Any, *arguments: Any, body: bytes = b"") -> dict[str, Any]:
    return Binder(function).bind(request(*arguments), body, {})


def test_scalars_from_the_query() -> None:
    def handler(
        text: str,
        whole: int,
        real: float,
        yes: bool,
        day: datetime.date,
        key: uuid.UUID,
        colour: Colour,
        kind: Literal["a", "b"],
        maybe: int | None = None,
        default: int = 7,
    ) -> None: ...

    query = f"text=a%20b+c&whole=1&real=2.5&yes=true&day=2026-11-22&key={uuid.UUID(int=1)}&colour=red&kind=b&maybe=3"
    assert bound(handler, query) == {
        "text": "a b c",
        "whole": 1,
        "real": 2.5,
        "yes": True,
        "day": datetime.date(2026, 11, 22),
        "key": uuid.UUID(int=1),
        "colour": Colour.RED,
        "kind": "b",
        "maybe": 3,
        "default": 7,
    }


def test_marked_parameters() -> None:
    def handler(
        x_token: Annotated[str, Header()],
        ids: Annotated[list[int], Query("id")],
        theme: Annotated[str, Cookie("t")] = "light",
        accept: Annotated[str | None, Header()] = None,
    ) -> None: ...

    headers = {"x-token": "abc", "cookie": "a=1; t=dark"}
    assert bound(handler, "id=1&id=2", headers) == {"x_token": "abc", "ids": [1, 2], "theme": "dark", "accept": None}


@pytest.mark.parametrize("annotation", [Item, dict, list, Typed, dict[str, Any], Item | None, tuple[int, ...]])
def test_what_comes_from_a_json_body(annotation: Any) -> None:
    def handler(body: Any) -> None: ...

    handler.__annotations__["body"] = annotation
    assert Binder(handler).body_kind == "json"


def test_bodies() -> None:
    def item(item: Item) -> None: ...
    def raw(body: bytes) -> None: ...
    def optional(item: Item | None = None) -> None: ...

    assert bound(item, body=b'{"name": "x", "price": 1}') == {"item": Item("x", 1.0)}
    assert bound(raw, body=b"\x00") == {"body": b"\x00"}
    assert bound(optional) == {"item": None}


@pytest.mark.parametrize("body", [b'{"name": "x", "price": 1}', memoryview(b'{"name": "x", "price": 1}')])
def test_a_body_that_is_not_copied(body: bytes | memoryview) -> None:
    def item(item: Item) -> None: ...
    def raw(body: bytes) -> None: ...
    def view(body: memoryview) -> None: ...
    def optional(body: memoryview | None = None) -> None: ...

    assert Binder(view).body_kind == "bytes"
    assert Binder(item).bind(request(), body, {}) == {"item": Item("x", 1.0)}
    for function, kind in ((raw, bytes), (view, memoryview), (optional, memoryview)):
        found = Binder(function).bind(request(), body, {})["body"]
        assert (type(found), found) == (kind, body)
    assert Binder(optional).bind(request(), body[:0], {}) == {"body": None}


def test_in_a_batch_a_parameter_is_bound_as_one_of_its_list() -> None:
    def handler(
        items: list[Item], name: list[str], size: list[int], tag: list[Annotated[str, Header()]], model: float
    ) -> None: ...

    binder = Binder(handler, ("name",), ("model",), batched=True)
    asked = request("size=3", {"tag": "t"})
    asked.path_params = {"name": "n"}
    assert binder.bind(asked, b'{"name": "x", "price": 1}', {"model": 2.0}) == {
        "items": Item("x", 1.0),
        "name": "n",
        "size": 3,
        "tag": "t",
        "model": 2.0,
    }


@pytest.mark.parametrize("annotation", [Item, list, tuple[Item, ...], Annotated[list[str], Header()]])
def test_in_a_batch_a_parameter_is_a_list(annotation: Any) -> None:
    def handler(a: Any) -> None: ...

    handler.__annotations__["a"] = annotation
    with pytest.raises(ConfigurationError, match=r"annotate it as a: list\[\.\.\.\] .* or declare a resource a"):
        Binder(handler, batched=True)


def test_in_a_batch_a_parameter_has_no_default() -> None:
    def handler(a: list[int] = []) -> None: ...  # noqa: B006

    with pytest.raises(ConfigurationError, match="has no default"):
        Binder(handler, batched=True)


def test_a_resource_is_opened_and_closed() -> None:
    log = []

    def plain() -> str:
        return "plain"

    def generator() -> Iterator[str]:
        yield "generator"
        log.append("closed")

    with ExitStack() as stack:
        assert [open_resource(stack, plain, {}), open_resource(stack, generator, {})] == ["plain", "generator"]
        assert not log
    assert log == ["closed"]


def test_every_fault_is_collected() -> None:
    def handler(
        item: Item, size: Annotated[int, msgspec.Meta(le=5)], ids: Annotated[list[int], Query()], day: str
    ) -> None: ...

    with pytest.raises(BindingError) as raised:
        bound(handler, "size=9&ids=1&ids=b", body=b'{"name": "x", "price": "free"}')
    assert raised.value.status == 422
    assert raised.value.faults == [
        ("$.price", "Expected `float`, got `str`"),
        ("query.size", "Expected `int` <= 5"),
        ("query.ids[1]", "Expected `int`, got `str`"),
        ("query.day", "is missing"),
    ]
    assert raised.value.problem()["errors"][3] == {"place": "query.day", "detail": "is missing"}


def test_pydantic_models_where_installed() -> None:
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


def test_what_is_made_of_pydantic_models() -> None:
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
        Binder(mixed)


def test_too_many_query_fields() -> None:
    def handler(a: int = 0) -> None: ...

    with pytest.raises(HTTPError, match="more than 1000 fields"):
        bound(handler, "a&" * 2000)


def test_an_annotation_that_does_not_exist() -> None:
    def handler(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match=r"Nowhere of the parameter a cannot be resolved.*TYPE_CHECKING"):
        Binder(handler)


MISSING: Any = object()


@dataclasses.dataclass
class Patch:
    name: str = MISSING
    inner: Patch | None = None


def test_a_default_need_not_be_json() -> None:
    def handler(patch: Patch) -> None: ...

    assert bound(handler, body=b"{}") == {"patch": Patch()}
    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'{"name": 1, "inner": {"name": 2}}')
    assert [place for place, _ in raised.value.faults] == ["$.name", "$.inner.name"]


# Mistakes that must not wait for a request


def test_markers_in_every_form() -> None:
    def handler(
        a: Annotated[str, Header],
        b: Annotated[str, Header("x-b")] | None = None,
        c: bytes | None = None,
        d: Annotated[list[int], Query()] | None = None,
    ) -> None: ...

    assert bound(handler, "", {"a": "1", "x-b": "2"}) == {"a": "1", "b": "2", "c": None, "d": None}
    assert bound(handler, "d=1&d=2", {"a": "1"}, body=b"x") == {"a": "1", "b": None, "c": b"x", "d": [1, 2]}


@pytest.mark.parametrize(
    ("annotation", "default", "says"),
    [
        (str, Header(), r"Header\(name=None\) as its default; write it as a: Annotated\[str, Header\(\)\]"),
        (str, Query, r"write it as a: Annotated\[str, Query\(\)\]"),
        (Annotated[Item, Query()], inspect.Parameter.empty, "cannot be made of that"),
        (Annotated[dict[str, str], Header()], inspect.Parameter.empty, "cannot be made of that"),
        (Annotated[list[Item], Query()], inspect.Parameter.empty, "cannot be made of that"),
    ],
)
def test_what_no_text_can_be(annotation: Any, default: Any, says: str) -> None:
    def handler(a: Any) -> None: ...

    handler.__annotations__["a"] = annotation
    if default is not inspect.Parameter.empty:
        handler.__defaults__ = (default,)
    with pytest.raises(ConfigurationError, match=says):
        Binder(handler)


def test_a_path_parameter_is_one_text() -> None:
    def handler(a: list[str]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"path\.a is a text"):
        Binder(handler, ("a",))


class Permission(enum.IntFlag):
    READ = 1


def test_an_enum_is_a_scalar() -> None:
    def handler(a: Permission) -> None: ...

    assert bound(handler, "a=1") == {"a": Permission.READ}


@pytest.mark.parametrize("others", ['p={"a":1}', "foo[bar]=1", "a@b=1", "nothing", "=", 'q="x; y"'])
def test_an_odd_cookie_hides_no_other(others: str) -> None:
    def handler(session: Annotated[str, Cookie()]) -> None: ...

    assert bound(handler, "", {"cookie": f'{others}; session="s=1"'}) == {"session": "s=1"}


def test_a_batch_without_a_list_is_refused() -> None:
    def handler() -> list[int]:
        return []

    with pytest.raises(ConfigurationError, match=r"has batch=, but no parameter is a list"):
        Binder(handler, batched=True)


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
def test_what_is_no_json_is_the_same_for_every_type(kind: Any, body: bytes, says: str) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    with pytest.raises(HTTPError, match=says) as raised:
        bound(handler, body=body)
    assert raised.value.status == 400


@pytest.mark.parametrize("kind", [Body, dict, BodyModel])
def test_a_byte_order_mark_is_ignored(kind: Any) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    value = bound(handler, body=b'\xef\xbb\xbf{"values": [1]}')["value"]
    assert (value["values"] if kind is dict else value.values) == [1]


def test_all_wrong_parameters_are_named_at_once() -> None:
    def handler(
        numbers: Annotated[list[int], Query()], at: datetime.datetime, age: Annotated[int, Header()], item: Item
    ) -> None: ...

    query = "numbers=1&numbers=x&numbers=y&at=2026-01-31T10:00:00+02:00"
    with pytest.raises(BindingError) as raised:
        bound(handler, query, {"age": "old"}, body=b'{"name": 1, "price": "x"}')
    assert [place for place, _ in raised.value.faults] == [
        *("query.numbers[1]", "query.numbers[2]", "query.at", "header.age", "$.name", "$.price"),
    ]
    assert "%2B" in raised.value.faults[2][1]


def test_a_union_without_tags_says_how_to_tell_its_classes_apart() -> None:
    def handler(value: list[Body | Item]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"for value: .*more than one.*tag=True"):
        Binder(handler)


def test_without_a_body_a_list_is_of_the_query() -> None:
    def handler(tags: list[str]) -> None: ...

    assert Binder(handler, has_body=False).bind(request("tags=a&tags=b"), b"", {}) == {"tags": ["a", "b"]}
    assert bound(handler, body=b'["a"]') == {"tags": ["a"]}


def test_a_type_for_checkers_only_is_not_needed_for_resources_and_results() -> None:
    def handler(price: Nowhere, request: tinysvc.Request) -> Nothing: ...  # type: ignore[name-defined]  # noqa: F821

    binder = Binder(handler, (), {"price"})
    given = request()
    assert binder.bind(given, b"", {"price": 2}) == {"price": 2, "request": given}
    assert binder.stream_type == ""


Json = str | int | list["Json"]  # type: ignore[misc,valid-type,unused-ignore]


def test_a_union_that_names_itself_by_a_text_is_one_error_with_the_remedy() -> None:
    def handler(value: list[Json]) -> None: ...  # type: ignore[valid-type,unused-ignore]

    with pytest.raises(ConfigurationError, match=r"cannot read a value of type .* TypeAliasType"):
        Binder(handler)


LONG = b"1" * 5000


@pytest.mark.parametrize("kind", [dict, BodyModel, dict[str, list[float]], dict[str, Any]])
@pytest.mark.parametrize("number", [b"1e999", b"-1E999", LONG])
def test_numbers_out_of_range_are_placed(kind: Any, number: bytes) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    with pytest.raises(BindingError) as raised:
        bound(handler, body=b'\xef\xbb\xbf{"values": [1, ' + number + b", 2, 1e400]}")
    assert raised.value.faults == [("$.values[1]", "Number out of range"), ("$.values[3]", "Number out of range")]


def test_numbers_out_of_range_and_other_faults_are_named_at_once() -> None:
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
def test_malformed_json_behind_a_number_out_of_range_is_a_400(kind: Any, rest: bytes) -> None:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = kind
    with pytest.raises(HTTPError, match="not JSON") as raised:
        bound(handler, body=b'{"price": 1e999' + rest)
    assert raised.value.status == 400


def test_parameters_of_several_functions_are_checked_at_once() -> None:
    def first(page: int, item: Item) -> None: ...

    def second(page: int, key: Annotated[str, ApiKey()], ids: Annotated[list[int], Header()]) -> None: ...

    check = HeadCheck([Binder(first), Binder(second)])
    with pytest.raises(BindingError) as raised:
        check(request("page=x", {"x-api-key": "k", "ids": "y"}))
    assert [place for place, _ in raised.value.faults] == ["query.page", "header.ids[0]"]
    with pytest.raises(HTTPError) as refused:
        check(request("&".join(f"{n}=1" for n in range(10_001))))  # too many fields are a 400, but to those who may ask
    assert refused.value.status == 401
    check(request("page=1", {"x-api-key": "k", "ids": "2"}))
