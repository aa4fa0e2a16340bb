"""core/responses.py: Response, and errors as problem documents."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any

import numpy as np
import pytest

from tinysvc.core.errors import HTTPError
from tinysvc.core.responses import Response, problem_response


def test_response_has_defaults() -> None:
    response = Response()
    assert (response.content, response.status, response.headers, response.content_type) == (None, 200, [], None)
    assert repr(Response(b"", 404, content_type="text/plain")) == "<Response 404 text/plain>"


@pytest.mark.parametrize("headers", [{"X-A": "1", "x-b": "2"}, [("x-a", "1"), ("X-B", "2")]])
def test_response_takes_headers_as_mapping_or_pairs(headers: Any) -> None:
    assert Response(headers=headers).headers == [("x-a", "1"), ("x-b", "2")]


def test_content_type_is_not_among_the_headers() -> None:
    response = Response(headers={"Content-Type": "text/plain"})
    assert (response.content_type, response.headers) == ("text/plain", [])
    response.add_header("Content-Type", "text/html")
    assert (response.content_type, response.headers) == ("text/html", [])


@pytest.mark.parametrize("status", [0, 100, 199, 600])
def test_response_status_must_be_final(status: int) -> None:
    with pytest.raises(ValueError, match=f"a response takes a status from 200 to 599, not {status}"):
        Response(status=status)


def test_error_becomes_a_problem_document() -> None:
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
def test_problem_members_are_encoded_like_results(more: Any, expected: bytes) -> None:
    error = OddProblem(400)
    error.more = more
    assert problem_response(error).content == b'{"more":%b}' % expected


def test_problem_with_a_lone_surrogate_is_sent() -> None:
    response = problem_response(HTTPError(404, "no file \udcff"))
    assert response.status == 404
    assert json.loads(response.content)["detail"] == "no file \udcff"


def test_bad_header_of_an_error_shows_the_line_that_raised_it() -> None:
    def handler() -> None:
        raise HTTPError(409, "no", headers=[("x-reason", "\u20ac")])

    with pytest.raises(HTTPError) as raised:
        handler()
    with pytest.raises(ValueError, match="the header 'x-reason' holds '\u20ac'") as bad:
        problem_response(raised.value)
    assert bad.traceback[-1].name == "handler"
