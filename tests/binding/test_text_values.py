"""text_values.py: path segments, query fields, headers and cookies as typed values."""

from __future__ import annotations

import datetime
import enum
import inspect
import uuid
from typing import Annotated, Any, Literal

import pytest

from binding_cases import Item, bound
from tinysvc.binding.binder import Binder
from tinysvc.binding.markers import Cookie, Header, Query
from tinysvc.core.errors import ConfigurationError, HTTPError


class Colour(enum.Enum):
    RED = "red"


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


def test_too_many_query_fields() -> None:
    def handler(a: int = 0) -> None: ...

    with pytest.raises(HTTPError, match="more than 1000 fields"):
        bound(handler, "a&" * 2000)


@pytest.mark.parametrize(
    ("annotation", "default", "says"),
    [
        (str, Header(), r"Header\(name=None\) as its default; write it as a: Annotated\[str, Header\(\)\]"),
        (str, Query, r"write it as a: Annotated\[str, Query\(\)\]"),
        (Annotated[Item, Query()], inspect.Parameter.empty, "cannot become"),
        (Annotated[dict[str, str], Header()], inspect.Parameter.empty, "cannot become"),
        (Annotated[list[Item], Query()], inspect.Parameter.empty, "cannot become"),
    ],
)
def test_type_that_a_text_cannot_become_is_refused(annotation: Any, default: Any, says: str) -> None:
    def handler(a: Any) -> None: ...

    handler.__annotations__["a"] = annotation
    if default is not inspect.Parameter.empty:
        handler.__defaults__ = (default,)
    with pytest.raises(ConfigurationError, match=says):
        Binder(handler)


def test_path_parameter_is_one_text() -> None:
    def handler(a: list[str]) -> None: ...

    with pytest.raises(ConfigurationError, match=r"path\.a is a text"):
        Binder(handler, ("a",))


class Permission(enum.IntFlag):
    READ = 1


def test_enum_is_a_scalar() -> None:
    def handler(a: Permission) -> None: ...

    assert bound(handler, "a=1") == {"a": Permission.READ}


@pytest.mark.parametrize("others", ['p={"a":1}', "foo[bar]=1", "a@b=1", "nothing", "=", 'q="x; y"'])
def test_odd_cookie_hides_no_other(others: str) -> None:
    def handler(session: Annotated[str, Cookie()]) -> None: ...

    assert bound(handler, "", {"cookie": f'{others}; session="s=1"'}) == {"session": "s=1"}
