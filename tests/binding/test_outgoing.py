"""outgoing.py: the binder reads the request of a call again as the same values."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc import ApiKey, ConfigurationError, Cookie, Header, Query, Request, WebSocket
from tinysvc.binding.binder import Binder
from tinysvc.binding.outgoing import OutgoingRequest, RequestWriter, outgoing_body
from tinysvc.core.headers import Headers
from tinysvc.service.router import Router


def writer(function: Any, path: str = "/", method: str = "GET", path_parameters: tuple[str, ...] = ()) -> RequestWriter:
    binder = Binder(function, path_parameters, has_body=method != "GET")
    return RequestWriter(function, method, path, binder.inputs)


def read(function: Any, sent: OutgoingRequest, path: str) -> dict[str, Any]:
    """The arguments as a server binds them."""
    router: Router[Any] = Router()
    router.add(path, (sent.method,), function, function)
    target, _, query = sent.target.partition("?")
    _, parameters = router.match(sent.method, target)
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.headers]
    request = Request(sent.method, target, query, Headers(lines), path_params=parameters)
    assert isinstance(sent.body, bytes)
    return Binder(function, parameters or (), has_body=sent.method != "GET").bind(request, sent.body, {})


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc"]))


def places(
    a: str, b: str, words: list[str], key: Annotated[str, ApiKey("k", "query")], flag: bool = False, n: float = 0
) -> None: ...


@given(
    TEXTS.filter(lambda text: text not in ("", ".", "..")),
    TEXTS,
    st.lists(TEXTS, min_size=1),
    TEXTS,
    st.booleans(),
    st.floats(allow_nan=False),
)
def test_any_text_in_path_and_query_is_read_again(
    a: str, b: str, words: list[str], key: str, flag: bool, n: float
) -> None:
    values = {"a": a, "b": b, "words": words, "key": key, "flag": flag, "n": n}
    sent = writer(places, "/x/{a}/y", path_parameters=("a",)).write(values)
    assert read(places, sent, "/x/{a}/y") == values


def lines(
    x_a: Annotated[str, Header()], b: Annotated[list[int], Header("b-list")], c: Annotated[str, Cookie()]
) -> None: ...


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"])).map(str.strip),
    st.lists(st.integers(-(2**60), 2**60), min_size=1),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='";,\\')),
)
def test_headers_and_cookies_are_read_again(x_a: str, b: list[int], c: str) -> None:
    x_a = x_a.strip("\xa0")
    values = {"x_a": x_a, "b": b, "c": c}
    assert read(lines, writer(lines).write(values), "/") == values


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"x_a": "a\r\nb: c"}, "x_a of lines is a header: one line of Latin-1"),
        ({"x_a": "☃"}, "x_a of lines is a header"),
        ({"c": "a;b"}, "c of lines is a cookie, which cannot hold 'a;b'"),
        ({"b": []}, r"b of lines cannot be sent as \[\] in the header; give the parameter the default \[\]"),
    ],
)
def test_value_that_does_not_fit_its_place_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        writer(lines).write({"x_a": "a", "b": [1], "c": "c", **values})


@pytest.mark.parametrize("text", ["", ".", ".."])
def test_path_segment_that_would_vanish_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a of places is a path segment, which cannot be"):
        writer(places, "/x/{a}", path_parameters=("a",)).write({"a": text})


def optional(a: int | None = None, b: Annotated[list[str], Query()] = [], c: int | None = 5) -> None: ...  # noqa: B006


def test_values_that_are_the_default_are_not_sent() -> None:
    assert writer(optional).write({"a": None, "b": []}).target == "/"
    assert parse_qsl(writer(optional).write({"a": 1, "b": ["x", "y"]}).target[2:]) == [
        ("a", "1"),
        ("b", "x"),
        ("b", "y"),
    ]
    with pytest.raises(ValueError, match="c of optional cannot be sent as None in the query"):
        writer(optional).write({"c": None})


def test_handler_of_a_connection_cannot_be_called() -> None:
    def socket(socket: WebSocket) -> None: ...

    with pytest.raises(ConfigurationError, match=r"socket .*cannot be called: its parameter socket"):
        writer(socket)


def test_request_is_filled_by_the_callee_and_may_have_a_body() -> None:
    def takes(request: Request, n: int) -> None: ...

    made = writer(takes, method="POST")
    assert made.names == ("n", "body")
    assert made.required == {"n"}
    sent = made.write({"n": 1, "body": bytearray(b"ab")})
    assert (sent.target, sent.body, sent.can_repeat) == ("/?n=1", b"ab", True)
    assert ("content-type", "application/octet-stream") in sent.headers
    assert made.write({"n": 1}).headers == []


def test_bodies() -> None:
    assert outgoing_body(memoryview(b"ab")) == (b"ab", True)
    assert outgoing_body(iter([b"a"]))[1] is False
    with pytest.raises(TypeError, match="not a str"):
        outgoing_body("text")
