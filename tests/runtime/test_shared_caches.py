"""caching.py: `private_to`, the headers for caches in front of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest

from tinysvc import (
    ApiKey,
    Bearer,
    Event,
    Handler,
    Header,
    Request,
    Response,
    Service,
    cpu_route,
    io_resource,
    io_route,
)
from tinysvc.testing import serving
from tinysvc.web.cookies import set_cookie
from tinysvc.web.static import StaticFiles

CONTROL = [("Cache-Control", "public, s-maxage=60, max-age=30")]
CONSTANT = Response("for all", headers=CONTROL)


@io_route("/token")
async def by_token(token: Annotated[str, Bearer()], control: str = "public, s-maxage=60") -> Response:
    return Response(token, headers={"cache-control": control} if control else {})


@cpu_route("/cpu-key")
def by_key(key: Annotated[str, ApiKey("X-Key")]) -> Response:
    return Response(key, headers=CONTROL)


@io_route("/cookie-key")
async def by_cookie_key(key: Annotated[str, ApiKey("key", "cookie")]) -> Response:
    return Response(key, headers=CONTROL)


@io_route("/url-key")
async def by_url_key(key: Annotated[str, ApiKey("key", "query")]) -> Response:
    return Response(key, headers=CONTROL)


@io_resource
async def user(authorization: Annotated[str, Header()] = "") -> str:
    return authorization


@io_route("/maybe")
async def maybe_known(user: str) -> Response:
    return CONSTANT


@io_route("/events")
async def events_of(token: Annotated[str, Bearer()]) -> AsyncIterator[Event]:
    yield Event(token)


@io_route("/language")
async def by_language(accept_language: Annotated[str, Header()] = "") -> Response:
    return Response(accept_language, headers=CONTROL)


async def says_public(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.add_header("cache-control", "public, max-age=9")
    return response


@io_route("/within")
async def within(token: Annotated[str, Bearer()]) -> str:
    return token


@pytest.fixture(scope="module")
def others() -> Iterator[str]:
    plain = Service(by_token, by_key, by_cookie_key, by_url_key, user, maybe_known, events_of, by_language, sets_cookie)
    with serving(Service(plain, Service(within, middleware=[says_public])), cpu_workers=1) as url:
        yield url


BEARER = {"authorization": "Bearer a"}


@pytest.mark.parametrize(
    ("path", "headers", "control"),
    [
        ("/token", BEARER, "private"),
        ("/token?control=max-age=5", BEARER, "private, max-age=5"),
        ("/token?control=no-store", BEARER, "no-store"),
        ("/token?control=", BEARER, ""),
        ("/cpu-key", {"x-key": "a"}, "private, max-age=30"),
        ("/cookie-key", {"cookie": "key=a"}, "private, max-age=30"),
        ("/url-key?key=a", {}, CONTROL[0][1]),
        ("/maybe", BEARER, "private, max-age=30"),
        ("/events", BEARER, "private, no-cache"),
        ("/within", BEARER, "private, max-age=9"),
        ("/language", {"accept-language": "de"}, CONTROL[0][1]),
    ],
)
def test_response_to_a_token_is_never_public(others: str, path: str, headers: dict[str, str], control: str) -> None:
    answer = httpx.get(others + path, headers=headers, timeout=20)
    assert answer.status_code == 200
    assert answer.headers.get("cache-control", "") == control


def test_response_without_the_optional_token_has_vary(others: str) -> None:
    for _ in range(2):
        assert httpx.get(f"{others}/maybe", headers=BEARER).headers["cache-control"].startswith("private")
        anonymous = httpx.get(f"{others}/maybe")
        assert anonymous.headers["cache-control"] == CONTROL[0][1]
        assert anonymous.headers["vary"] == "authorization"
    assert CONSTANT.headers == [("cache-control", CONTROL[0][1])]


@io_route("/sets/{kind}")
async def sets_cookie(kind: str) -> Response:
    response = Response(iter(["a"]) if kind == "stream" else "a", headers=CONTROL)
    if kind == "as-written":
        response.headers.append(("Set-Cookie", "a=b"))
    elif kind == "alone":
        response = Response("a", headers={"set-cookie": "a=b"})
    elif kind != "none":
        set_cookie(response, "a", "b")
    return response


@pytest.mark.parametrize(
    ("kind", "control"),
    [
        ("cookie", "private, max-age=30"),
        ("stream", "private, max-age=30"),
        ("as-written", "private, max-age=30"),
        ("alone", ""),
        ("none", CONTROL[0][1]),
    ],
)
def test_response_that_sets_a_cookie_is_never_public(others: str, kind: str, control: str) -> None:
    assert httpx.get(f"{others}/sets/{kind}").headers.get("cache-control", "") == control


@pytest.mark.parametrize(("headers", "control"), [({}, "public, max-age=60"), (BEARER, "private, max-age=60")])
def test_file_behind_a_token_is_never_public(tmp_path: Path, headers: dict[str, str], control: str) -> None:
    (tmp_path / "a.txt").write_text("abc")
    with serving(StaticFiles(tmp_path, cache_control="public, max-age=60")) as url:
        answer = httpx.get(f"{url}/static/a.txt", headers=headers)
        again = httpx.get(f"{url}/static/a.txt", headers={**headers, "if-none-match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code) == (200, 304)
    assert answer.headers["cache-control"] == again.headers["cache-control"] == control
