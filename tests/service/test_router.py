"""router.py: path patterns, and the routes that match a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.core.errors import ConfigurationError, HTTPError
from tinysvc.service.router import Router, allow


def handler() -> None: ...


def router(*routes: str) -> Router[str]:
    made: Router[str] = Router()
    for route in routes:
        method, path = route.split()
        made.add(path, [method], route, handler)
    return made


@pytest.mark.parametrize(
    ("path", "target", "parameters"),
    [
        ("/", "GET /", None),
        ("/users", "GET /users", None),
        ("/users/", "GET /users/", None),
        ("/users/7", "GET /users/{id}", {"id": "7"}),
        ("/users/me", "GET /users/me", None),
        ("/users/me/notes", "GET /users/{id}/notes", {"id": "me"}),
        ("/users/a%2Fb", "GET /users/{id}", {"id": "a/b"}),
        ("/users/%E2%82%AC", "GET /users/{id}", {"id": "€"}),
        ("/files/a/b/c.txt", "GET /files/{path:path}", {"path": "a/b/c.txt"}),
        ("/files/", "GET /files/{path:path}", {"path": ""}),
        ("/caf%C3%A9", "GET /café", None),
        ("/c%61f%C3%A9", "GET /café", {}),
    ],
)
def test_match(path: str, target: str, parameters: dict[str, str] | None) -> None:
    table = router(
        "GET /",
        "GET /users",
        "GET /users/",
        "GET /users/{id}",
        "POST /users/me",
        "GET /users/me",
        "GET /users/{id}/notes",
        "GET /files/{path:path}",
        "GET /café",
    )
    assert table.match("GET", path) == (target, parameters)


def test_get_serves_head_unless_head_has_a_route() -> None:
    assert router("GET /a").match("HEAD", "/a")[0] == "GET /a"
    assert router("GET /{a}").match("HEAD", "/a")[0] == "GET /{a}"
    assert router("GET /a", "HEAD /a").match("HEAD", "/a")[0] == "HEAD /a"


def test_literal_with_another_method_does_not_hide_a_parameter() -> None:
    assert router("POST /new", "GET /{id}").match("GET", "/new") == ("GET /{id}", {"id": "new"})


@pytest.mark.parametrize("path", ["/x", "/users/", "/users/1/2", "//users/1", "*", ""])
def test_404(path: str) -> None:
    with pytest.raises(HTTPError) as raised:
        router("GET /users/{id}").match("GET", path)
    assert raised.value.status == 404


def test_405_lists_the_methods_of_the_path() -> None:
    table = router("GET /a", "POST /a", "PUT /{x}", "DELETE /{rest:path}")
    with pytest.raises(HTTPError) as raised:
        table.match("PATCH", "/a")
    assert raised.value.status == 405
    assert raised.value.headers == [("allow", "DELETE, GET, HEAD, OPTIONS, POST, PUT")]
    assert allow(["POST"]) == "OPTIONS, POST"


def test_second_handler_for_a_path_and_method_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"GET /\{b\} already has a handler"):
        router("GET /{a}", "GET /{b}")


@given(st.lists(st.text("ab{}%/.", max_size=4), max_size=5).map("/".join))
def test_any_path_matches_or_gets_no_route(path: str) -> None:
    table = router("GET /a", "GET /{x}/b", "GET /a/{y}/{z:path}", "GET /b/{x}/a")
    try:
        target, _ = table.match("GET", "/" + path)
    except HTTPError as error:
        target = f"GET / is {error.status}"
    assert target.startswith("GET /")
    assert "405" not in target


def test_failed_branch_leaves_no_values() -> None:
    table = router("GET /{a}/b/c", "GET /{x:path}", "POST /a/{b}/d")
    assert table.match("GET", "/a/b/d") == ("GET /{x:path}", {"x": "a/b/d"})
    assert table.match("GET", "/a/b/c") == ("GET /{a}/b/c", {"a": "a"})
    assert table.match("POST", "/a/b/d") == ("POST /a/{b}/d", {"b": "b"})
