"""core/headers.py: the header fields of requests and responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tinysvc.core.headers import Headers
from tinysvc.core.responses import Response, json_response

RAW = ((b"host", b"x"), (b"accept", b"a"), (b"x-name", b"caf\xe9"), (b"accept", b"b"))


def test_header_names_are_case_insensitive() -> None:
    headers = Headers(RAW)
    assert headers["HOST"] == "x"
    assert headers["x-Name"] == "caf\xe9"
    assert headers.get("missing") is None
    assert "Accept" in headers
    assert list(headers) == ["host", "accept", "x-name"]
    assert len(headers) == 3
    assert repr(headers) == "Headers({'host': 'x', 'accept': 'a, b', 'x-name': 'caf\xe9'})"


def test_repeated_headers_are_joined_and_get_all_separates_them() -> None:
    headers = Headers(RAW)
    assert headers["accept"] == "a, b"
    assert headers.get_all("ACCEPT") == ["a", "b"]
    assert headers.get_all("missing") == []


def test_get_all_returns_a_copy() -> None:
    headers = Headers(RAW)
    headers.get_all("accept").append("c")
    assert headers.get_all("accept") == ["a", "b"]


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "a\0", "\xe9", "(a)"])
def test_header_name_must_be_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="a header name must be an RFC 9110 token"):
        Response(headers={name: "1"})


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\n", "a\r", "a\0b", "\x7f", "\N{SNOWMAN}", 1, None, b"a"])
def test_header_value_must_be_one_line_of_latin_1(value: Any) -> None:
    for name in ("x-a", "content-type"):
        with pytest.raises(ValueError, match=f"the value of the header '{name}' "):
            Response().add_header(name, value)
    if value is not None:
        with pytest.raises(ValueError, match="the value of the header 'content-type'"):
            Response(content_type=value)


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Connection", "Date"])
def test_headers_of_the_server_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match="is written by the server"):
        Response(headers={name: "1"})


CYRILLIC = ("content-disposition", 'attachment; filename="тест"')
ADDITIONS: list[Callable[[Response], Any]] = [
    lambda response: response.add_header(*CYRILLIC),
    lambda response: response.headers.append(CYRILLIC),
    lambda response: response.headers.extend([CYRILLIC]),
    lambda response: response.headers.insert(0, CYRILLIC),
    lambda response: response.headers.__iadd__([CYRILLIC]),
    lambda response: response.headers.__setitem__(0, CYRILLIC),
    lambda response: response.headers.__setitem__(slice(0, 1), [CYRILLIC]),
    lambda response: Response(b"", headers=[CYRILLIC]),
    lambda response: Response(b"", headers=dict([CYRILLIC])),
    lambda response: json_response(b"1").headers.append(CYRILLIC),
    lambda response: response.headers.copy().append(CYRILLIC),
]


@pytest.mark.parametrize("add", ADDITIONS)
def test_text_beyond_latin_1_is_refused_at_its_line(add: Callable[[Response], Any]) -> None:
    response = Response(b"", headers=[("a", "b")])
    with pytest.raises(ValueError, match=r"'content-disposition' holds 'т'.*attachment.*filename\*=UTF-8''"):
        add(response)
    assert response.headers == [("a", "b")]


def test_good_header_lines_are_added() -> None:
    headers = Response(b"", headers=[("a", "b")]).headers
    headers.insert(0, ("x", "ü"))
    headers += [("c", "d")]
    headers[1:2] = [("e", "f")]
    headers[0] = ("g", "h")
    assert headers == [("g", "h"), ("e", "f"), ("c", "d")]
