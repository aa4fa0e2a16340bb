"""places.py: each place takes its parameters, in the order of the table."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from binding_cases import Item
from tinysvc.binding.binder import Binder
from tinysvc.binding.inputs import Input
from tinysvc.binding.markers import ApiKey, Bearer, Cookie, Form, Header, Marker, Path, Query, marker_in
from tinysvc.binding.places import PLACES, Parameter, place_of
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.form_data import UploadFile
from tinysvc.core.requests import Request


class User:
    """A class that is made of a request."""

    @classmethod
    def of_request(cls, request: Request) -> User:
        return cls()


REQUIRED = inspect.Parameter.empty

_MARKED: list[tuple[Marker, str, str]] = [
    (Query("q"), "query", "q"),
    (Header(), "header", "store"),
    (Cookie(), "cookie", "store"),
    (Bearer(), "header", "authorization"),
    (ApiKey("k", "query"), "query", "k"),
]

# The parameter's name and annotation; its input; the words of its rule. `key` is in the path, `store` is a resource.
CASES: list[tuple[str, Any, Input, str]] = [
    ("key", int, Input("key", "path", "key", int, REQUIRED, Path()), "named in the path"),
    ("key", REQUIRED, Input("key", "path", "key", str, REQUIRED, Path()), "named in the path"),
    ("store", REQUIRED, Input("store", "resource", "", REQUIRED, REQUIRED, travels=False), "named like a resource"),
    ("request", REQUIRED, Input("request", "request", "", REQUIRED, REQUIRED, travels=False), "annotated `Request`"),
    ("asked", Request, Input("asked", "request", "", Request, REQUIRED, travels=False), "annotated `Request`"),
    ("user", User, Input("user", "of_request", "", User, REQUIRED, travels=False), "annotated with a class"),
    ("form", Annotated[Item, Form()], Input("form", "whole form", "", Item, REQUIRED), "`Annotated[T, Form()]`"),
    ("photo", UploadFile, Input("photo", "form", "photo", UploadFile, REQUIRED), "`UploadFile`"),
    (
        "photos",
        Annotated[list[UploadFile], Form("photo")],
        Input("photos", "form", "photo", Annotated[list[UploadFile], Form("photo")], REQUIRED),
        "`UploadFile`",
    ),
    *[
        (name, hint, Input(name, "form", name, hint, REQUIRED, Form()), "any other `Annotated[T, Form()]`")
        for name, hint in [("title", Annotated[str, Form()]), ("tags", Annotated[list[str], Form()])]
    ],
    *[
        (
            "store",  # the marker comes before the resource of this name
            Annotated[str, marker],
            Input("store", place, field, Annotated[str, marker], REQUIRED, marker),
            "`Annotated[T, Query()",
        )
        for marker, place, field in _MARKED
    ],
    ("raw", bytes, Input("raw", "bytes", "", bytes, REQUIRED), "annotated `bytes`"),
    ("view", memoryview | None, Input("view", "bytes", "", memoryview | None, REQUIRED), "annotated `bytes`"),
    (
        "items",
        AsyncIterator[int],
        Input("items", "stream", "", AsyncIterator[int], REQUIRED),
        "annotated `AsyncIterator[T]`",
    ),
    ("item", Item, Input("item", "json", "", Item, REQUIRED), "a dataclass"),
    ("tags", list[str], Input("tags", "json", "", list[str], REQUIRED), "a dataclass"),
    ("page", int, Input("page", "query", "page", int, REQUIRED, Query()), "any other type"),
]


@pytest.mark.parametrize(("name", "annotation", "expected", "rule"), CASES)
def test_parameter_is_filled_from_its_place(name: str, annotation: Any, expected: Input, rule: str) -> None:
    def handler(**_: Any) -> None: ...

    own = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    key = inspect.Parameter("key", inspect.Parameter.KEYWORD_ONLY, annotation=int)
    handler.__signature__ = inspect.Signature([own] if name == "key" else [own, key])  # type: ignore[attr-defined]
    handler.__annotations__ = {} if annotation is REQUIRED else {name: annotation}
    binder = Binder(handler, ("key",), ("store",))
    assert binder.inputs[0] == expected
    in_path, marker = name == "key", marker_in(annotation)
    is_resource = name == "store" and marker is None
    place = place_of(Parameter(handler, name, annotation, REQUIRED, marker, in_path, is_resource, True))
    assert place.parameters.startswith(rule)
    assert (place.travels, place.body_kind) == (expected.travels, binder.body_kind)


def test_every_place_has_a_case() -> None:
    rules = [rule for *_, rule in CASES]
    assert [place for place in PLACES if not any(place.parameters.startswith(rule) for rule in rules)] == []


def test_list_of_texts_comes_from_the_query_without_a_body() -> None:
    def handler(tags: list[str]) -> None: ...

    assert [each.place for each in Binder(handler, has_body=False).inputs] == ["query"]


def test_path_comes_before_every_other_place() -> None:
    def handler(request: int, store: str) -> None: ...
    def of_request(user: User) -> None: ...

    assert [each.place for each in Binder(handler, ("request", "store"), ("store",)).inputs] == ["path", "path"]
    with pytest.raises(ConfigurationError, match=r"path\.user"):
        Binder(of_request, ("user",))
