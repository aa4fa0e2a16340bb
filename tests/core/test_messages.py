"""messages.py: small values, true from birth."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from tinysvc.core.errors import HTTPError
from tinysvc.core.messages import (
    MAX_REQUEST_ID,
    Headers,
    Peer,
    Request,
    Response,
    json_response,
    problem_response,
)

RAW = ((b"host", b"x"), (b"accept", b"a"), (b"x-name", b"caf\xe9"), (b"accept", b"b"))


def test_headers_are_a_mapping_that_does_not_mind_the_case() -> None:
    headers = Headers(RAW)
    assert headers["HOST"] == "x"
    assert headers["x-Name"] == "caf\xe9"
    assert headers.get("missing") is None
    assert "Accept" in headers
    assert list(headers) == ["host", "accept", "x-name"]
    assert len(headers) == 3
    assert repr(headers) == "Headers({'host': 'x', 'accept': 'a, b', 'x-name': 'caf\xe9'})"


def test_repeated_headers_are_joined_and_can_be_had_apart() -> None:
    headers = Headers(RAW)
    assert headers["accept"] == "a, b"
    assert headers.get_all("ACCEPT") == ["a", "b"]
    assert headers.get_all("missing") == []


def test_what_get_all_gave_away_changes_nothing() -> None:
    headers = Headers(RAW)
    headers.get_all("accept").append("c")
    assert headers.get_all("accept") == ["a", "b"]


def test_a_request_by_default() -> None:
    request = Request("GET", "/a%2Fb%20c")
    assert (request.raw_path, request.path) == ("/a%2Fb%20c", "/a/b c")
    assert (request.client, request.server, request.scheme) == (None, None, "http")
    assert dict(request.headers) == {}
    assert request.query == {}
    assert request.path_params is None
    assert asyncio.run(request.body()) == b""
    assert repr(request) == "<Request GET /a%2Fb%20c>"


def test_a_request_knows_both_ends() -> None:
    request = Request("GET", "/", peer=Peer(("c", 1), ("s", 2), "https"))
    assert (request.client, request.server, request.scheme) == (("c", 1), ("s", 2), "https")


async def pieces() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


@pytest.mark.parametrize("body", [lambda: b"ab", pieces])
def test_a_body_is_had_whole_and_again_or_in_pieces(body: Callable[[], Any]) -> None:
    async def whole() -> tuple[bytes, bytes]:
        request = Request("POST", "/", body=body())
        return await request.body(), await request.body()

    async def streamed() -> list[bytes]:
        return [piece async for piece in Request("POST", "/", body=body()).stream()]

    assert asyncio.run(whole()) == (b"ab", b"ab")
    assert b"".join(asyncio.run(streamed())) == b"ab"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["abc-1.2"], "abc-1.2"),
        (["x" * MAX_REQUEST_ID], "x" * MAX_REQUEST_ID),
        (["x" * (MAX_REQUEST_ID + 1)], None),
        (["two words"], None),
        (["a", "b"], "a"),
        ([""], None),
        ([], None),
    ],
)
def test_the_id_of_a_request_is_the_client_s_where_it_is_a_token(lines: list[str], expected: str | None) -> None:
    request = Request("GET", "/", headers=Headers([(b"x-request-id", line.encode()) for line in lines]))
    assert request.id == request.id
    if expected is None:
        other = Request("GET", "/")
        assert re.fullmatch(r"[0-9a-f]{12}-\d+", request.id)
        assert request.id != other.id
    else:
        assert request.id == expected


def test_a_request_can_be_told_its_id() -> None:
    assert Request("GET", "/", headers=Headers([(b"x-request-id", b"a")]), id="b").id == "b"


def test_a_body_in_memory_that_is_shared_is_had_as_bytes() -> None:
    async def both() -> tuple[bytes, list[bytes]]:
        request = Request("POST", "/", body=memoryview(b"ab"))
        return await request.body(), [piece async for piece in request.stream()]

    assert asyncio.run(both()) == (b"ab", [b"ab"])
    assert Request("POST", "/", body=memoryview(b"ab")).has_arrived
    assert Request("POST", "/", body=b"").has_arrived
    assert not Request("POST", "/", body=pieces()).has_arrived


def test_an_empty_body_streams_nothing() -> None:
    async def streamed() -> list[bytes]:
        return [piece async for piece in Request("POST", "/").stream()]

    assert asyncio.run(streamed()) == []


def test_a_response_by_default() -> None:
    response = Response()
    assert (response.content, response.status, response.headers, response.content_type) == (None, 200, [], None)
    assert repr(Response(b"", 404, content_type="text/plain")) == "<Response 404 text/plain>"


@pytest.mark.parametrize("headers", [{"X-A": "1", "x-b": "2"}, [("x-a", "1"), ("X-B", "2")]])
def test_headers_of_a_response_come_as_mapping_or_pairs(headers: Any) -> None:
    assert Response(headers=headers).headers == [("x-a", "1"), ("x-b", "2")]


def test_a_content_type_is_kept_apart_from_the_headers() -> None:
    response = Response(headers={"Content-Type": "text/plain"})
    assert (response.content_type, response.headers) == ("text/plain", [])
    response.add_header("Content-Type", "text/html")
    assert (response.content_type, response.headers) == ("text/html", [])


@pytest.mark.parametrize("status", [0, 100, 199, 600])
def test_a_response_has_a_final_status(status: int) -> None:
    with pytest.raises(ValueError, match=f"a response takes a status from 200 to 599, not {status}"):
        Response(status=status)


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "a\0", "\xe9", "(a)"])
def test_a_header_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="a header name must be an RFC 9110 token"):
        Response(headers={name: "1"})


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\n", "a\r", "a\0b", "\x7f", "\N{SNOWMAN}", 1, None, b"a"])
def test_a_header_value_is_one_line_of_latin_1(value: Any) -> None:
    for name in ("x-a", "content-type"):
        with pytest.raises(ValueError, match=f"the value of the header '{name}' "):
            Response().add_header(name, value)
    if value is not None:
        with pytest.raises(ValueError, match="the value of the header 'content-type'"):
            Response(content_type=value)


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Connection", "Date"])
def test_the_server_s_own_headers_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match="is written by the server"):
        Response(headers={name: "1"})


def test_an_error_becomes_a_problem_document() -> None:
    response = problem_response(HTTPError(418, "no coffee", headers=[("x-a", "1")]))
    assert (response.status, response.headers, response.content_type) == (
        418,
        [("x-a", "1")],
        "application/problem+json",
    )
    assert response.content == b'{"type":"about:blank","title":"I\'m a Teapot","status":418,"detail":"no coffee"}'


class OddProblem(HTTPError):
    more: Any = None

    def problem(self) -> dict[str, Any]:
        return {"more": self.more}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (dt.datetime(2026, 1, 31, tzinfo=dt.UTC), b'"2026-01-31T00:00:00Z"'),
        (np.float32(0.5), b"0.5"),
        ({1: decimal.Decimal("1.50")}, b'{"1":"1.50"}'),
        (np.arange(2), b"[0,1]"),
        (2**70, b"1180591620717411303424"),
    ],
)
def test_members_of_a_problem_are_written_as_results_are(more: Any, expected: bytes) -> None:
    error = OddProblem(400)
    error.more = more
    assert problem_response(error).content == b'{"more":%b}' % expected


def test_problem_with_text_that_is_no_unicode_is_answered_all_the_same() -> None:
    response = problem_response(HTTPError(404, "no file \udcff"))
    assert response.status == 404
    assert json.loads(response.content)["detail"] == "no file \udcff"


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
def test_text_that_is_not_latin_1_is_refused_where_it_is_added(add: Callable[[Response], Any]) -> None:
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


def test_a_bad_header_of_an_error_names_the_line_that_raised_it() -> None:
    def handler() -> None:
        raise HTTPError(409, "no", headers=[("x-reason", "\u20ac")])

    with pytest.raises(HTTPError) as raised:
        handler()
    with pytest.raises(ValueError, match="the header 'x-reason' holds '\u20ac'") as bad:
        problem_response(raised.value)
    assert bad.traceback[-1].name == "handler"
