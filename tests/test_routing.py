"""routing.py: patterns, matches, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.errors import ConfigurationError, HTTPError
from tinysvc.routing import (
    Batch,
    Resource,
    Route,
    Router,
    allow,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
    recorded,
)


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


def test_head_is_answered_from_get_unless_it_has_its_own() -> None:
    assert router("GET /a").match("HEAD", "/a")[0] == "GET /a"
    assert router("GET /{a}").match("HEAD", "/a")[0] == "GET /{a}"
    assert router("GET /a", "HEAD /a").match("HEAD", "/a")[0] == "HEAD /a"


def test_a_literal_with_another_method_does_not_hide_a_parameter() -> None:
    assert router("POST /new", "GET /{id}").match("GET", "/new") == ("GET /{id}", {"id": "new"})


@pytest.mark.parametrize("path", ["/x", "/users/", "/users/1/2", "//users/1", "*", ""])
def test_404(path: str) -> None:
    with pytest.raises(HTTPError) as raised:
        router("GET /users/{id}").match("GET", path)
    assert raised.value.status == 404


def test_405_lists_what_the_path_allows() -> None:
    table = router("GET /a", "POST /a", "PUT /{x}", "DELETE /{rest:path}")
    with pytest.raises(HTTPError) as raised:
        table.match("PATCH", "/a")
    assert raised.value.status == 405
    assert raised.value.headers == [("allow", "DELETE, GET, HEAD, OPTIONS, POST, PUT")]
    assert allow(["POST"]) == "OPTIONS, POST"


def test_two_handlers_for_one_path_and_method_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"GET /\{b\} has a handler already"):
        router("GET /{a}", "GET /{b}")


def test_decorators_record_and_may_be_stacked() -> None:
    @io_route("/a")
    @io_route("/b", methods=["post", "PUT"])
    def both() -> None: ...

    routes = [record for record in recorded(both) if isinstance(record, Route)]
    assert [(route.path, route.methods) for route in routes] == [("/b", ("POST", "PUT")), ("/a", ("GET",))]


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigurationError, match="timeout must be a number of seconds, 0 or more, not -1"):
        cpu_route("/", timeout=-1)(handler)
    with pytest.raises(ConfigurationError, match='takes "cancel" or "finish"'):
        cpu_route("/", on_disconnect="maybe")(handler)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='takes "cancel" or "finish"'):
        io_route("/", on_disconnect="maybe")(handler)  # type: ignore[arg-type]
    for size in (-1, True, "1"):
        with pytest.raises(ConfigurationError, match="max_body_size must be a whole number of bytes, 0 or more, not"):
            io_route("/", max_body_size=size)(handler)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is not a function"):
        io_resource(len)
    with pytest.raises(ConfigurationError, match="methods is empty"):
        io_route("/", methods=[])(lambda: None)


@given(st.lists(st.text("ab{}%/.", max_size=4), max_size=5).map("/".join))
def test_any_path_is_matched_or_refused(path: str) -> None:
    table = router("GET /a", "GET /{x}/b", "GET /a/{y}/{z:path}", "GET /b/{x}/a")
    try:
        target, _ = table.match("GET", "/" + path)
    except HTTPError as error:
        target = f"GET / is {error.status}"
    assert target.startswith("GET /")
    assert "405" not in target


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pool": ""}, "pool takes the name of a pool, as in pool=\"training\", not ''"),
        ({"pool": None}, "pool takes the name of a pool"),
        ({"limit": 0}, "limit must be a whole number of workers, 1 or more, not 0"),
        ({"limit": True}, "limit must be a whole number"),
        ({"limit": 1.5}, "limit must be a whole number"),
        ({"batch": 32}, r"batch takes a Batch, as in batch=Batch\(size=32\), not 32"),
        ({"batch": Batch(size=0)}, "the size of a batch is a whole number, 1 or more, not 0"),
        ({"batch": Batch(size=2.0)}, "the size of a batch"),  # type: ignore[arg-type]
        ({"batch": Batch(wait=-1)}, "the wait of a batch is a number of seconds, 0 or more, not -1"),
        ({"batch": Batch(wait=float("nan"))}, "the wait of a batch"),
        ({"batch": Batch(wait="1")}, "the wait of a batch"),  # type: ignore[arg-type]
    ],
)
def test_wrong_options_of_a_cpu_route_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"handler \(.*test_routing\.py:[0-9]+\): {says}"):
        cpu_route("/", **options)(handler)


def test_a_generator_takes_no_batch() -> None:
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="streams, but a batch is answered whole; return a list, or drop"):
        cpu_route("/", batch=Batch())(items)


def test_pool_limit_and_batch_are_recorded() -> None:
    def plain() -> None: ...

    cpu_route("/a", pool="training", limit=2, batch=Batch(8, 0))(plain)
    cpu_route("/b")(plain)
    a, b = (record for record in recorded(plain) if isinstance(record, Route))
    assert (a.pool, a.limit, a.batch) == ("training", 2, Batch(size=8, wait=0))
    assert (b.pool, b.limit, b.batch) == ("default", None, None)


def test_a_cpu_resource_is_shared_or_not() -> None:
    def plain() -> int:
        return 1

    def shared() -> int:
        return 2

    assert cpu_resource(plain) is plain
    assert cpu_resource(shared=True)(shared) is shared
    (a,), (b,) = recorded(plain), recorded(shared)
    assert isinstance(a, Resource)
    assert isinstance(b, Resource)
    assert (a.kind, a.shared, b.kind, b.shared) == ("cpu", False, "cpu", True)
    with pytest.raises(ConfigurationError, match=r"plain .*shared must be True or False, not 'yes'"):
        cpu_resource(shared="yes")(plain)  # type: ignore[call-overload]


def test_what_a_failed_way_matched_is_forgotten() -> None:
    table = router("GET /{a}/b/c", "GET /{x:path}", "POST /a/{b}/d")
    assert table.match("GET", "/a/b/d") == ("GET /{x:path}", {"x": "a/b/d"})
    assert table.match("GET", "/a/b/c") == ("GET /{a}/b/c", {"a": "a"})
    assert table.match("POST", "/a/b/d") == ("POST /a/{b}/d", {"b": "b"})
