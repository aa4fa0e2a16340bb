"""cors.py: allowed origins, preflights, and Vary for caches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tinysvc import ConfigurationError, HTTPError, Response, Service, io_route
from tinysvc.testing import serving
from tinysvc.web.cors import Cors

APP, PORT, DEEP = "https://app.example", "http://localhost:3000", "https://a.b.example.org"


@io_route("/thing", methods=["GET", "PUT"])
async def thing() -> Response:
    return Response("thing", headers={"vary": "Accept", "x-total": "7"})


@io_route("/fails")
async def fails() -> None:
    raise HTTPError(409, "taken")


@io_route("/own-headers")
async def own_headers() -> Response:
    return Response("own", headers={"access-control-allow-origin": PORT, "access-control-expose-headers": "x-own"})


@io_route("/own", methods=["OPTIONS"])
async def own() -> str:
    return "own"


def service(prefix: str, **options: Any) -> Service:
    return Service(thing, fails, own_headers, own, prefix=prefix, middleware=[Cors(**options)])


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    named = [APP, PORT, "https://*.example.org", "null"]
    parts = [
        service(
            "/named", origins=named, headers=["content-type", "x-a"], expose=["x-total"], credentials=True, max_age=5
        ),
        service("/any", origins=["*"], headers=["*"], methods=["GET", "PUT"]),
        service("/plain", origins=[APP], headers=[], methods=["get", "patch"]),
        Service(
            service("/within", origins=[PORT]), prefix="/twice", middleware=[Cors(origins=[APP, PORT], expose=["x-b"])]
        ),
    ]
    with serving(Service(*parts)) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize("origin", [APP, PORT, DEEP, "https://x.example.org", "HTTPS://App.Example", "null"])
@pytest.mark.parametrize(("path", "status"), [("thing", 200), ("fails", 409), ("nowhere", 404)])
def test_listed_origin_is_allowed(client: httpx.Client, origin: str, path: str, status: int) -> None:
    response = client.get(f"/named/{path}", headers={"origin": origin})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-expose-headers"] == "x-total"
    assert "origin" in response.headers["vary"]


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "http://app.example", "https://app.example:8443", "https://app.example.evil.example",
        "https://xapp.example", "https://example.org", "https://evilexample.org", "https://x.example.org.evil.example",
        "https://x.example.org:8443", "https://a/.example.org", "https://a@.example.org", "https://.example.org",
        "https://..example.org", "https://a%2eexample.org", "", "*", "https://app.example/", "file://", "nul",
    ],
)  # fmt: skip
def test_other_origins_are_not_allowed(client: httpx.Client, origin: str) -> None:
    response = client.get("/named/thing", headers={"origin": origin})
    assert response.text == "thing"
    assert not any(name.startswith("access-control-") for name in response.headers)
    assert response.headers["vary"] == "Accept, origin"
    fields = {"origin": origin, "access-control-request-method": "PUT"}
    preflight = client.options("/named/thing", headers=fields)
    assert not any(name.startswith("access-control-") for name in preflight.headers)


def test_vary_is_set_without_an_origin_header(client: httpx.Client) -> None:
    assert client.get("/named/thing").headers["vary"] == "Accept, origin"


def test_preflight_gets_methods_headers_and_max_age(client: httpx.Client) -> None:
    fields = {"origin": APP, "access-control-request-method": "PUT", "access-control-request-headers": "x-a"}
    for path in ("thing", "own", "nowhere"):
        response = client.options(f"/named/{path}", headers=fields)
        assert (response.status_code, response.content) == (204, b"")
        found = {name.removeprefix("access-control-"): v for name, v in response.headers.items() if "access" in name}
        assert found == {
            "allow-origin": APP,
            "allow-credentials": "true",
            "allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
            "allow-headers": "content-type, x-a",
            "max-age": "5",
        }
        assert response.headers["vary"] == "origin, access-control-request-method, access-control-request-headers"


def test_content_type_and_authorization_are_allowed_by_default() -> None:
    with serving(Service(thing, middleware=[Cors(origins=[APP])])) as url:
        fields = {"origin": APP, "access-control-request-method": "POST"}
        response = httpx.options(f"{url}/thing", headers=fields)
        assert response.headers["access-control-allow-headers"] == "content-type, authorization"


def test_star_allows_any_origin(client: httpx.Client) -> None:
    response = client.get("/any/thing", headers={"origin": "https://any.example"})
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers
    assert response.headers["vary"] == "Accept"
    fields = {"origin": APP, "access-control-request-method": "PUT", "access-control-request-headers": "x-b, x-c"}
    preflight = client.options("/any/thing", headers=fields)
    assert preflight.headers["access-control-allow-headers"] == "x-b, x-c"
    assert preflight.headers["access-control-allow-methods"] == "GET, PUT"
    assert preflight.headers["access-control-max-age"] == "600"


def test_empty_headers_send_no_allow_headers(client: httpx.Client) -> None:
    fields = {"origin": APP, "access-control-request-method": "PUT"}
    assert "access-control-allow-headers" not in client.options("/plain/thing", headers=fields).headers


def test_methods_are_sent_in_capitals(client: httpx.Client) -> None:
    fields = {"origin": APP, "access-control-request-method": "PATCH"}
    assert client.options("/plain/thing", headers=fields).headers["access-control-allow-methods"] == "GET, PATCH"


@pytest.mark.parametrize(
    ("path", "origin", "allowed", "exposed"),
    [
        ("/named/own-headers", APP, [PORT], ["x-own"]),  # set by the handler; this browser does not accept it
        ("/any/own-headers", APP, [PORT], ["x-own"]),
        ("/twice/within/thing", PORT, [PORT], []),  # allowed by the inner middleware
        ("/twice/within/thing", APP, [APP], ["x-b"]),  # not allowed by the inner middleware
        ("/twice/within/thing", DEEP, [], []),
    ],
)
def test_allow_origin_is_set_once(
    client: httpx.Client, path: str, origin: str, allowed: list[str], exposed: list[str]
) -> None:
    response = client.get(path, headers={"origin": origin})
    assert response.status_code == 200
    assert response.headers.get_list("access-control-allow-origin") == allowed
    assert response.headers.get_list("access-control-expose-headers") == exposed
    assert len(response.headers.get_list("vary")) == (0 if path.startswith("/any") else 1)


def test_options_without_preflight_headers_reach_the_service(client: httpx.Client) -> None:
    assert client.options("/named/own", headers={"origin": APP}).text == "own"
    assert client.options("/named/thing").headers["allow"] == "GET, HEAD, OPTIONS, PUT"
    assert client.options("/named/own", headers={"access-control-request-method": "PUT"}).text == "own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origins": []}, "origins takes a list"),
        ({"origins": APP}, "origins takes a list"),
        ({"origins": ["*"], "credentials": True}, "lets any page act for your users; list the origins"),
        *(({"origins": [origin]}, "is not an origin") for origin in (
            "https://app.example/", "app.example", "https://app.example/path", "https://", "", "https://*",
            "https://a.*.example", "*.example.org", "https://*example.org", "https://a b", "https://\u00e9.example",
        )),
        *(({"origins": [origin]}, "has the default port") for origin in (
            "https://app.example:443", "http://app.example:80", "HTTPS://[::1]:0443", "https://*.example.org:443",
        )),
        ({"origins": [APP], "max_age": -1}, "max_age takes a whole number of seconds"),
        ({"origins": [APP], "max_age": "5\r\nx: y"}, "max_age takes a whole number of seconds"),
        ({"origins": [APP], "methods": ["*"], "credentials": True}, "with credentials=True browsers ignore methods="),
        ({"origins": [APP], "expose": ["*"], "credentials": True}, "with credentials=True browsers ignore expose="),
        ({"origins": [APP], "methods": "GET"}, "methods takes a list of names"),
        ({"origins": [APP], "headers": ["a b"]}, "headers takes a list of names"),
        ({"origins": [APP], "expose": ["a\r\nb"]}, "expose takes a list of names"),
    ],
)  # fmt: skip
def test_invalid_options_are_configuration_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Cors(**options)


@pytest.mark.parametrize("origin", ["http://app.example:443", "https://app.example:80", "https://[::1]:8443"])
def test_other_ports_are_other_origins(origin: str) -> None:
    assert Cors(origins=[origin])._allows(origin)
    assert not Cors(origins=[origin])._allows(origin.rpartition(":")[0])
