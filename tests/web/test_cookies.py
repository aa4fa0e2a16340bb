"""cookies.py: what is set, what is refused because browsers would, and what is signed; and what a client sends."""

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
def test_what_is_set(options: dict[str, Any], line: str) -> None:
    assert cookie_of(**options) == line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a b"}, "a cookie's name is an RFC 9110 token"),
        ({"name": ""}, "a cookie's name is an RFC 9110 token"),
        ({"name": "a=b"}, "a cookie's name is an RFC 9110 token"),
        *(({"value": value}, "holds what no cookie can") for value in ("a b", "a;b", "a,b", 'a"b', "a\\b", "\u00e9",
        "a\n", "a\0", 1)), ({"value": "x" * MAX_SIZE}, "has 4097 bytes; browsers take 4096"),
        ({"path": "/;x"}, "the path of the cookie a cannot be '/;x'"),
        ({"domain": "a\r\nb"}, "the domain of the cookie a cannot be"),
        ({"same_site": "Lax"}, 'same_site takes "lax", "strict" or "none"'),
        ({"same_site": "none", "secure": False}, 'same_site="none", so that browsers take it with secure=True only'),
        ({"partitioned": True, "secure": False}, "partitioned, so that"),
        ({"name": "__Secure-a", "secure": False}, "__Secure-, so that"),
        ({"name": "__host-a", "secure": False}, "__Host-, so that"),
        ({"name": "__Host-a", "path": "/x"}, 'with path="/" and no domain only'),
        ({"name": "__Host-a", "domain": "x.org"}, 'with path="/" and no domain only'),
        ({"max_age": 1.5}, "max_age takes a whole number of seconds"),
        ({"max_age": True}, "max_age takes a whole number of seconds"),
        ({"expires": datetime(2026, 1, 1)}, "expires takes a datetime with a time zone"),
    ],
)  # fmt: skip
def test_what_browsers_would_refuse_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        cookie_of(**options)


def test_caches_are_told() -> None:
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


# From clients


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
def test_what_clients_send(lines: list[str], cookies: dict[str, str]) -> None:
    assert parse_cookies(lines) == cookies


# Signed


def asked(cookie: str) -> Request:
    return Request("GET", "/", headers=Headers([(b"cookie", cookie.encode())]))


def written(cookie: SignedCookie, value: Any) -> str:
    response = Response()
    cookie.write(response, value)
    return dict(response.headers)["set-cookie"].partition(";")[0]


def test_what_was_signed_is_read_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SignedCookie("session", SECRET, max_age=60)
    line = written(session, {"user": 7, "name": "zw\u00f6lf"})
    assert session.read(asked(line)) == {"user": 7, "name": "zw\u00f6lf"}
    assert session.read(asked("other=1")) is None
    bad = [
        line[:-1],
        line + "x",
        "session=",
        "session=a.b.c",
        line.replace("session=", "session=x"),
        "session=" + "." * 4000,
    ]
    assert [session.read(asked(each)) for each in bad] == [None] * len(bad)
    other_name = SignedCookie("other", SECRET)
    assert other_name.read(asked(line.replace("session=", "other="))) is None
    assert SignedCookie("session", OLD).read(asked(line)) is None
    later = time.time() + 62
    monkeypatch.setattr(time, "time", lambda: later)
    assert session.read(asked(line)) is None


@pytest.mark.parametrize("payload", [b"@@", b"eA", b"\xff", b".abc", b""])
def test_what_is_well_signed_but_holds_no_json_is_not_read(payload: bytes) -> None:
    session = SignedCookie("session", SECRET)
    signed = session._serializer.make_signer(session._serializer.salt).sign(payload)
    request = Request("GET", "/", headers=Headers([(b"cookie", b"session=" + signed)]))
    assert session.read(request) is None


def test_a_bad_one_is_one_line_in_the_log_without_its_value(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert SignedCookie("session", SECRET).read(asked("session=forged.by.me")) is None
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith("the cookie session of request ")
    assert "forged" not in record.getMessage()


def test_a_secret_is_renewed_by_putting_a_new_one_in_front() -> None:
    line = written(SignedCookie("s", OLD), 1)
    renewed = SignedCookie("s", [SECRET, OLD])
    assert renewed.read(asked(line)) == 1
    assert SignedCookie("s", SECRET).read(asked(written(renewed, 2))) == 2


def test_options_and_deletion() -> None:
    cookie = SignedCookie("s", SECRET, path="/x", same_site="strict", max_age=5)
    response = Response()
    cookie.write(response, 1)
    cookie.delete(response)
    lines = [value for name, value in response.headers if name == "set-cookie"]
    assert lines[0].endswith("; Path=/x; Max-Age=5; Secure; HttpOnly; SameSite=Strict")
    assert lines[1] == "s=; Path=/x; Max-Age=0; Secure; HttpOnly; SameSite=Strict"


@pytest.mark.parametrize("secrets", ["short", [], [SECRET, "short"], ""])
def test_a_secret_that_can_be_guessed(secrets: Any) -> None:
    with pytest.raises(ConfigurationError, match="each secret of the cookie s has 16 characters or more"):
        SignedCookie("s", secrets)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a b", {}, "an RFC 9110 token"),
        ("__Host-s", {"path": "/x"}, "no domain only"),
        ("s", {"secure": False, "same_site": "none"}, "secure=True only"),
        ("s", {"max_age": 1.5}, "max_age takes a whole number"),
    ],
)
def test_what_could_never_be_set_is_said_at_once(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        SignedCookie(name, SECRET, **options)


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "itsdangerous", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tinysvc\[cookies\]'"):
        SignedCookie("s", SECRET)


# On the wire

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


def test_a_browser_keeps_them(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        assert [client.get("/visit").text for _ in range(3)] == ["1", "2", "3"]
        answer = client.get("/leave")
        assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "cookie")
        assert client.get("/visit").text == "1"
        client.cookies.set("a", "b")
        assert client.get("/read").json() == ["b", "b"]


def test_nothing_is_injected(url: str) -> None:
    answer = httpx.get(f"{url}/injected", params={"value": "x\r\nset-cookie: evil=1"})
    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers


def test_an_aware_moment_is_told_in_gmt() -> None:
    assert "Expires=Thu, 01 Jan 2026 00:00:00 GMT" in cookie_of(expires=datetime(2026, 1, 1, tzinfo=UTC))
