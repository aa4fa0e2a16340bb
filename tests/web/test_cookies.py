"""cookies.py: set, invalid and signed cookies; and the cookies of requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import httpx
import pytest

from tinysvc import ConfigurationError, Cookie, Request, Response, Service, io_route
from tinysvc.core.headers import Headers
from tinysvc.core.requests import parse_cookies
from tinysvc.testing import serving
from tinysvc.web.cookies import MAX_SIZE, SignedCookie, delete_cookie, set_cookie

SECRET = "a secret that is long enough"
OLD = "another one, from last year"
ALWAYS = "; Path=/; Secure; HttpOnly; SameSite=Lax"


def cookie_of(**options: Any) -> str:
    response = Response()
    set_cookie(response, options.pop("name", "a"), options.pop("value", "b"), **options)
    ((_, line),) = [field for field in response.headers if field[0] == "set-cookie"]
    return line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "a=b" + ALWAYS),
        ({"value": ""}, "a=" + ALWAYS),
        ({"max_age": 60}, "a=b; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"),
        ({"max_age": 0}, "a=b; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"),
        (
            {"expires": datetime(1994, 11, 6, 10, 49, 37, tzinfo=timezone(timedelta(hours=2)))},
            "a=b; Path=/; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Secure; HttpOnly; SameSite=Lax",
        ),
        ({"path": "/x", "domain": "example.org"}, "a=b; Path=/x; Domain=example.org; Secure; HttpOnly; SameSite=Lax"),
        ({"secure": False, "http_only": False, "same_site": "strict"}, "a=b; Path=/; SameSite=Strict"),
        ({"same_site": "none", "partitioned": True}, "a=b; Path=/; Secure; HttpOnly; Partitioned; SameSite=None"),
        ({"name": "__Host-a"}, "__Host-a=b" + ALWAYS),
        (
            {"name": "__Secure-a", "domain": "x.org"},
            "__Secure-a=b; Path=/; Domain=x.org; Secure; HttpOnly; SameSite=Lax",
        ),
        ({"value": "x" * (MAX_SIZE - 1)}, "a=" + "x" * (MAX_SIZE - 1) + ALWAYS),
    ],
)
def test_set_cookie_writes_the_header(options: dict[str, Any], line: str) -> None:
    assert cookie_of(**options) == line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "the name of a cookie must be a token"),
        ({"name": ""}, "the name of a cookie must be a token"),
        ({"name": "a=b"}, "the name of a cookie must be a token"),
        *(({"value": value}, "must be ASCII text without spaces") for value in ("a b", "a;b", "a,b", 'a"b', "a\\b",
        "\u00e9", "a\n", "a\0", 1)), ({"value": "x" * MAX_SIZE}, "has 4097 bytes; browsers accept 4096"),
        ({"path": "/;x"}, "the path of the cookie a must be ASCII text without semicolons, not '/;x'"),
        ({"domain": "a\r\nb"}, "the domain of the cookie a must be ASCII text"),
        ({"same_site": "Lax"}, 'same_site takes "lax", "strict" or "none"'),
        ({"same_site": "none", "secure": False}, 'same_site="none": browsers accept it with secure=True only'),
        ({"partitioned": True, "secure": False}, "partitioned: browsers"),
        ({"name": "__Secure-a", "secure": False}, "__Secure-: browsers"),
        ({"name": "__host-a", "secure": False}, "__Host-: browsers"),
        ({"name": "__Host-a", "path": "/x"}, 'with path="/" and without a domain only'),
        ({"name": "__Host-a", "domain": "x.org"}, 'with path="/" and without a domain only'),
        ({"max_age": 1.5}, "max_age takes a whole number of seconds"),
        ({"max_age": True}, "max_age takes a whole number of seconds"),
        ({"expires": datetime(2026, 1, 1)}, "expires takes a datetime with a time zone"),
    ],
)  # fmt: skip
def test_invalid_cookie_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        cookie_of(**options)


def test_set_cookie_sets_cache_control_and_vary() -> None:
    response = Response(headers={"vary": "accept"})
    set_cookie(response, "a", "b")
    set_cookie(response, "c", "d")
    assert [field for field in response.headers if field[0] != "set-cookie"] == [
        ("cache-control", "no-store"),
        ("vary", "accept, cookie"),
    ]
    own = Response(headers={"cache-control": "private, max-age=5"})
    set_cookie(own, "a", "b")
    assert ("cache-control", "private, max-age=5") in own.headers
    assert ("cache-control", "no-store") not in own.headers


# Cookies of requests


@pytest.mark.parametrize(
    ("lines", "cookies"),
    [
        ([], {}),
        (["a=1"], {"a": "1"}),
        (["a=1; b=2"], {"a": "1", "b": "2"}),
        (["a=1;b=2", "c=3"], {"a": "1", "b": "2", "c": "3"}),
        (["a=first; a=second"], {"a": "first"}),
        (['a="quoted"'], {"a": "quoted"}),
        (["a=b=c"], {"a": "b=c"}),
        (["a=; b"], {"a": ""}),
        (["=__Host-x=1; a=1"], {"a": "1"}),
        (["==x"], {}),
        (
            ["\xa0__Host-x=1; \x85__Host-x=2; \x0b__Host-x=3"],
            {"\xa0__Host-x": "1", "\x85__Host-x": "2", "\x0b__Host-x": "3"},
        ),
        (['$Version=1; a="1; __Host-x=2"; a=3,__Host-y=4'], {"$Version": "1", "a": "1", "__Host-x": "2"}),
        ([" a = 1 ;;; "], {"a": "1"}),
        (['a="' + "\\" * 8000], {"a": "\\" * 8000}),
        (["x;" * 4000 + "a=1"], {"a": "1"}),
    ],
)
def test_cookies_of_requests_are_parsed(lines: list[str], cookies: dict[str, str]) -> None:
    assert parse_cookies(lines) == cookies


# Signed cookies


def request_with(cookie: str) -> Request:
    return Request("GET", "/", headers=Headers([(b"cookie", cookie.encode())]))


def written(cookie: SignedCookie, value: Any) -> str:
    response = Response()
    cookie.write(response, value)
    return dict(response.headers)["set-cookie"].partition(";")[0]


def test_only_valid_signatures_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SignedCookie("session", SECRET, max_age=60)
    line = written(session, {"user": 7, "name": "zw\u00f6lf"})
    assert session.read(request_with(line)) == {"user": 7, "name": "zw\u00f6lf"}
    assert session.read(request_with("other=1")) is None
    bad = [
        line[:-1],
        line + "x",
        "session=",
        "session=a.b.c",
        line.replace("session=", "session=x"),
        "session=" + "." * 4000,
    ]
    assert [session.read(request_with(each)) for each in bad] == [None] * len(bad)
    other_name = SignedCookie("other", SECRET)
    assert other_name.read(request_with(line.replace("session=", "other="))) is None
    assert SignedCookie("session", OLD).read(request_with(line)) is None
    later = time.time() + 62
    monkeypatch.setattr(time, "time", lambda: later)
    assert session.read(request_with(line)) is None


@pytest.mark.parametrize("payload", [b"@@", b"eA", b"\xff", b".abc", b""])
def test_signed_text_that_is_not_json_is_not_read(payload: bytes) -> None:
    session = SignedCookie("session", SECRET)
    signed = session._serializer.make_signer(session._serializer.salt).sign(payload)
    request = Request("GET", "/", headers=Headers([(b"cookie", b"session=" + signed)]))
    assert session.read(request) is None


def test_invalid_signature_is_logged_without_the_value(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert SignedCookie("session", SECRET).read(request_with("session=forged.by.me")) is None
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith("the cookie session of request ")
    assert "forged" not in record.getMessage()


def test_first_secret_signs_and_all_verify() -> None:
    line = written(SignedCookie("s", OLD), 1)
    renewed = SignedCookie("s", [SECRET, OLD])
    assert renewed.read(request_with(line)) == 1
    assert SignedCookie("s", SECRET).read(request_with(written(renewed, 2))) == 2


def test_signed_cookie_has_the_options_of_set_cookie() -> None:
    cookie = SignedCookie("s", SECRET, path="/x", same_site="strict", max_age=5)
    response = Response()
    cookie.write(response, 1)
    cookie.delete(response)
    lines = [value for name, value in response.headers if name == "set-cookie"]
    assert lines[0].endswith("; Path=/x; Max-Age=5; Secure; HttpOnly; SameSite=Strict")
    assert lines[1] == "s=; Path=/x; Max-Age=0; Secure; HttpOnly; SameSite=Strict"


@pytest.mark.parametrize("secrets", ["short", [], [SECRET, "short"], ""])
def test_short_secret_is_a_configuration_error(secrets: Any) -> None:
    with pytest.raises(ConfigurationError, match="each secret of the cookie s must have at least 16 characters"):
        SignedCookie("s", secrets)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a b", {}, "must be a token"),
        ("__Host-s", {"path": "/x"}, "without a domain only"),
        ("s", {"secure": False, "same_site": "none"}, "secure=True only"),
        ("s", {"max_age": 1.5}, "max_age takes a whole number"),
    ],
)
def test_invalid_signed_cookie_is_a_configuration_error(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SignedCookie(name, SECRET, **options)


def test_missing_library_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "itsdangerous", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tinysvc\[cookies\]'"):
        SignedCookie("s", SECRET)


# A served service

visits = SignedCookie("visits", SECRET, secure=False)


@io_route("/visit")
async def visit(request: Request) -> Response:
    count = (visits.read(request) or 0) + 1
    response = Response(str(count))
    visits.write(response, count)
    return response


@io_route("/leave")
async def leave() -> Response:
    response = Response("bye")
    delete_cookie(response, "visits", secure=False)
    return response


@io_route("/injected")
async def injected(value: str) -> Response:
    response = Response("x")
    set_cookie(response, "a", value)
    return response


@io_route("/read")
async def read(request: Request, a: Annotated[str, Cookie()] = "") -> list[str]:
    return [a, request.cookies.get("a", "")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Service(visit, leave, injected, read), raise_errors=False) as url:
        yield url


def test_client_sends_the_cookies_back(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        assert [client.get("/visit").text for _ in range(3)] == ["1", "2", "3"]
        response = client.get("/leave")
        assert (response.headers["cache-control"], response.headers["vary"]) == ("no-store", "cookie")
        assert client.get("/visit").text == "1"
        client.cookies.set("a", "b")
        assert client.get("/read").json() == ["b", "b"]


def test_header_injection_is_refused(url: str) -> None:
    response = httpx.get(f"{url}/injected", params={"value": "x\r\nset-cookie: evil=1"})
    assert response.status_code == 500
    assert "set-cookie" not in response.headers


def test_expires_is_sent_in_gmt() -> None:
    assert "Expires=Thu, 01 Jan 2026 00:00:00 GMT" in cookie_of(expires=datetime(2026, 1, 1, tzinfo=UTC))
