"""markers.py: markers, and the values that they name."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from tinysvc import ApiKey, Bearer, ConfigurationError, Cookie, Form, Header, Query, Request
from tinysvc.binding.markers import Marker, lookup_of, marker_in
from tinysvc.core.headers import Headers

REQUEST = Request(
    "GET",
    "/",
    "a=1&a=2&key=q",
    Headers([(b"x-key", b"h"), (b"x-key", b"i"), (b"cookie", b"key=c"), (b"authorization", b"Bearer\t t ")]),
)


@pytest.mark.parametrize(
    ("marker", "parameter", "place", "field", "values"),
    [
        (Query(), "a", "query", "a", ["1", "2"]),
        (Query("key"), "a", "query", "key", ["q"]),
        (Header(), "x_key", "header", "x-key", ["h", "i"]),
        (Header("X-Key"), "k", "header", "X-Key", ["h", "i"]),
        (Cookie(), "key", "cookie", "key", ["c"]),
        (ApiKey("x-key"), "k", "header", "x-key", ["h", "i"]),
        (ApiKey("key", "cookie"), "k", "cookie", "key", ["c"]),
        (ApiKey("key", "query"), "k", "query", "key", ["q"]),
        (ApiKey("other"), "k", "header", "other", []),
    ],
)
def test_each_marker_finds_its_values(
    marker: Marker, parameter: str, place: str, field: str, values: list[str]
) -> None:
    where, name, values_of = lookup_of(marker, parameter)
    assert (where, name, values_of(REQUEST, name)) == (place, field, values)


@pytest.mark.parametrize(
    ("value", "tokens"),
    [(b"Bearer t", ["t"]), (b"bearer  t", ["t"]), (b"Bearer", []), (b"Bearer ", []), (b"Basic t", []), (b"", [])],
)
def test_bearer_tokens(value: bytes, tokens: list[str]) -> None:
    _, name, values_of = lookup_of(Bearer(), "token")
    assert values_of(Request("GET", "/", headers=Headers([(b"authorization", value)])), name) == tokens


@pytest.mark.parametrize(
    ("annotation", "marker"),
    [
        (Annotated[str, Query("q")], Query("q")),
        (Annotated[str, Header], Header()),
        (Annotated[str, Bearer()] | None, Bearer()),
        (Annotated[str, "text", Form()], Form()),
        (str, None),
    ],
)
def test_marker_in_annotation(annotation: Any, marker: Marker | None) -> None:
    assert marker_in(annotation) == marker


def test_api_key_has_one_of_three_places() -> None:
    with pytest.raises(ConfigurationError, match='a "header", a "cookie" or the "query", not \'body\''):
        ApiKey("k", "body")  # type: ignore[arg-type]
