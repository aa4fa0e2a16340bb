"""job_headers.py: the headers of a submission."""

from __future__ import annotations

import pytest

from tinysvc import HTTPError, Request
from tinysvc.core.headers import Headers
from tinysvc.runtime.job_headers import after_of, key_of, priority_of, scoped_key, sent_values, shown_key


def request_with(**headers: str) -> Request:
    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request("POST", "/", headers=Headers(lines))


def test_defaults_of_a_submission() -> None:
    assert (key_of(Request("POST", "/")), after_of(Request("POST", "/")), priority_of(Request("POST", "/"))) == (
        "",
        0,
        0,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", "abc"), ('"abc"', "abc"), (' "a\\"b" ', 'a"b'), ("a b", "a b"), ("x" * 255, "x" * 255)],
)
def test_idempotency_key_with_and_without_quotes(text: str, expected: str) -> None:
    assert key_of(request_with(idempotency_key=text)) == expected


@pytest.mark.parametrize("text", ["", '""', "x" * 256, "ä", "a\tb"])
def test_wrong_idempotency_key_is_refused(text: str) -> None:
    with pytest.raises(HTTPError, match="400 Idempotency-Key takes"):
        key_of(request_with(idempotency_key=text))


def test_after_and_priority_are_numbers() -> None:
    assert after_of(request_with(job_after="1.5")) == 1.5
    assert priority_of(request_with(job_priority="-7")) == -7


@pytest.mark.parametrize("text", ["", "-1", "soon", "1e3", "999999999999", "nan"])
def test_wrong_after_is_refused(text: str) -> None:
    with pytest.raises(HTTPError, match="400 Job-After takes seconds"):
        after_of(request_with(job_after=text))


@pytest.mark.parametrize("text", ["", "101", "1.5", "high"])
def test_wrong_priority_is_refused(text: str) -> None:
    with pytest.raises(HTTPError, match="400 Job-Priority takes a whole number"):
        priority_of(request_with(job_priority=text))


def test_key_is_kept_apart_for_each_sender_and_path() -> None:
    ada, bob = request_with(authorization="Bearer ada"), request_with(authorization="Bearer bob")
    keys = {
        scoped_key("k", path, sent_values(each, [("header", "authorization")]))
        for each in (ada, bob)
        for path in ("", "/users/7/trainings")
    }
    assert len(keys) == 4
    assert {shown_key(key) for key in keys} == {"k"}
    assert scoped_key("k", "", []) == "k"
    assert scoped_key("", "", [("authorization", "Bearer ada")]) == ""


def test_sent_values_are_those_of_the_named_headers_and_cookies() -> None:
    sent = [(b"x-user", b"ada"), (b"cookie", b"a=1; sid=7"), (b"x-user", b"bob")]
    request = Request("POST", "/", headers=Headers(sent))
    places = [("header", "x-user"), ("header", "x-team"), ("cookie", "sid"), ("cookie", "none")]
    assert sent_values(request, places) == [("x-user", "ada, bob"), ("cookie sid", "7")]
