"""binder.py: which rule fills which parameter, without a server."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
import pytest

from binding_cases import Item, Typed, bound, request
from tinysvc.binding.binder import Binder, HeadCheck
from tinysvc.binding.markers import ApiKey, Header, Query
from tinysvc.core.errors import BindingError, ConfigurationError, HTTPError


@pytest.mark.parametrize("annotation", [Item, dict, list, Typed, dict[str, Any], Item | None, tuple[int, ...]])
def test_types_of_json_bodies(annotation: Any) -> None:
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
def test_body_is_not_copied(body: bytes | memoryview) -> None:
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


def test_batch_binds_one_item_of_each_list() -> None:
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
def test_batch_parameter_must_be_a_list(annotation: Any) -> None:
    def handler(a: Any) -> None: ...

    handler.__annotations__["a"] = annotation
    with pytest.raises(ConfigurationError, match=r"annotate it as a: list\[\.\.\.\] .* or declare a resource a"):
        Binder(handler, batched=True)


def test_batch_parameter_has_no_default() -> None:
    def handler(a: list[int] = []) -> None: ...  # noqa: B006

    with pytest.raises(ConfigurationError, match="has no default"):
        Binder(handler, batched=True)


def test_all_faults_are_in_one_error() -> None:
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


def test_unresolved_annotation_is_refused() -> None:
    def handler(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match=r"Nowhere of the parameter a cannot be resolved.*TYPE_CHECKING"):
        Binder(handler)


def test_notations_of_markers() -> None:
    def handler(
        a: Annotated[str, Header],
        b: Annotated[str, Header("x-b")] | None = None,
        c: bytes | None = None,
        d: Annotated[list[int], Query()] | None = None,
    ) -> None: ...

    assert bound(handler, "", {"a": "1", "x-b": "2"}) == {"a": "1", "b": "2", "c": None, "d": None}
    assert bound(handler, "d=1&d=2", {"a": "1"}, body=b"x") == {"a": "1", "b": None, "c": b"x", "d": [1, 2]}


def test_batch_without_a_list_is_refused() -> None:
    def handler() -> list[int]:
        return []

    with pytest.raises(ConfigurationError, match=r"has batch=, but no parameter is a list"):
        Binder(handler, batched=True)


def test_faults_of_all_places_are_in_one_error() -> None:
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


def test_list_comes_from_the_query_without_a_body() -> None:
    def handler(tags: list[str]) -> None: ...

    assert Binder(handler, has_body=False).bind(request("tags=a&tags=b"), b"", {}) == {"tags": ["a", "b"]}
    assert bound(handler, body=b'["a"]') == {"tags": ["a"]}


def test_resources_and_results_need_no_resolved_types() -> None:
    def handler(price: Nowhere, request: tinysvc.Request) -> Nothing: ...  # type: ignore[name-defined]  # noqa: F821

    binder = Binder(handler, (), {"price"})
    given = request()
    assert binder.bind(given, b"", {"price": 2}) == {"price": 2, "request": given}
    assert binder.stream_type == ""


def test_head_check_covers_several_functions() -> None:
    def first(page: int, item: Item) -> None: ...

    def second(page: int, key: Annotated[str, ApiKey()], ids: Annotated[list[int], Header()]) -> None: ...

    check = HeadCheck([Binder(first), Binder(second)])
    with pytest.raises(BindingError) as raised:
        check(request("page=x", {"x-api-key": "k", "ids": "y"}))
    assert [place for place, _ in raised.value.faults] == ["query.page", "header.ids[0]"]
    with pytest.raises(HTTPError) as refused:
        # A missing key gets its 401 before too many fields get a 400.
        check(request("&".join(f"{n}=1" for n in range(10_001))))
    assert refused.value.status == 401
    check(request("page=1", {"x-api-key": "k", "ids": "2"}))
