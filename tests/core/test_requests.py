"""core/requests.py: the attributes of a Request, and how its body is read."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import tinysvc
from tinysvc import Service, io_route
from tinysvc.core.headers import Headers
from tinysvc.core.requests import MAX_REQUEST_ID, Peer, Request

SOURCE = Path(tinysvc.__file__).parent


def test_request_has_defaults() -> None:
    request = Request("GET", "/a%2Fb%20c")
    assert (request.raw_path, request.path) == ("/a%2Fb%20c", "/a/b c")
    assert (request.client, request.server, request.scheme) == (None, None, "http")
    assert dict(request.headers) == {}
    assert request.query == {}
    assert request.path_params is None
    assert asyncio.run(request.body()) == b""
    assert repr(request) == "<Request GET /a%2Fb%20c>"


def test_request_knows_both_ends_of_its_connection() -> None:
    request = Request("GET", "/", peer=Peer(("c", 1), ("s", 2), "https"))
    assert (request.client, request.server, request.scheme) == (("c", 1), ("s", 2), "https")


def test_every_attribute_has_a_value_from_the_beginning() -> None:
    request = Request("GET", "/")
    assert [name for name in Request.__slots__ if not hasattr(request, name)] == []
    with pytest.raises(AttributeError):
        request.note = "a request is no blackboard"  # type: ignore[attr-defined]


def test_no_code_probes_a_request_for_an_attribute() -> None:
    probes = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr", "setattr")
        and re.search(r"\b(request|served_by|peer)\b", ast.unparse(node.args[0]))
    ]
    assert probes == []


def test_proxy_reports_host_and_prefix_in_the_peer() -> None:
    headers = Headers([(b"host", b"own.example")])
    own = Request("GET", "/", headers=headers)
    behind = Request("GET", "/", headers=headers, peer=Peer(None, None, "https", "shop.example", "/shop"))
    assert (own.host, own.root_path) == ("own.example", "")
    assert (behind.host, behind.root_path) == ("shop.example", "/shop")


def test_service_of_a_request_gives_its_paths() -> None:
    @io_route("/items/{name}")
    async def item(name: str) -> str:
        return name

    assert Request("GET", "/", served_by=Service(item)).url_for(item, name="a b") == "/items/a%20b"
    request = Request("GET", "/", peer=Peer(None, None, "http", root_path="/shop"))
    with pytest.raises(RuntimeError, match=r"served_by=Service"):
        request.url_for(item, name="x")
    request.served_by = Service(item)
    assert request.url_for(item, name="x") == "/shop/items/x"


FORM = Headers([(b"content-type", b"application/x-www-form-urlencoded")])


@pytest.mark.parametrize("body", [lambda: b"a=1", lambda: form_pieces()])
@pytest.mark.parametrize("keeps", [True, False])
def test_form_keeps_the_body_only_for_a_handler_that_reads_it(body: Callable[[], Any], keeps: bool) -> None:
    async def read() -> bytes:
        request = Request("POST", "/", headers=FORM, body=body())
        if keeps:
            request.keep_form()
        assert (await request.form()).fields == {"a": ["1"]}
        request.keep_form()  # too late to change anything
        return await request.body()

    if keeps:
        assert asyncio.run(read()) == b"a=1"
    else:
        with pytest.raises(RuntimeError, match="streamed before"):
            asyncio.run(read())


async def form_pieces() -> AsyncIterator[bytes]:
    yield b"a="
    yield b"1"


async def pieces() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


@pytest.mark.parametrize("body", [lambda: b"ab", pieces])
def test_body_is_read_repeatedly_or_streamed(body: Callable[[], Any]) -> None:
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
def test_request_id_of_the_client_is_used_if_it_is_a_token(lines: list[str], expected: str | None) -> None:
    request = Request("GET", "/", headers=Headers([(b"x-request-id", line.encode()) for line in lines]))
    assert request.id == request.id
    if expected is None:
        other = Request("GET", "/")
        assert re.fullmatch(r"[0-9a-f]{12}-\d+", request.id)
        assert request.id != other.id
    else:
        assert request.id == expected


def test_request_takes_an_id() -> None:
    assert Request("GET", "/", headers=Headers([(b"x-request-id", b"a")]), id="b").id == "b"


def test_body_in_a_memoryview_is_returned_as_bytes() -> None:
    async def both() -> tuple[bytes, list[bytes]]:
        request = Request("POST", "/", body=memoryview(b"ab"))
        return await request.body(), [piece async for piece in request.stream()]

    assert asyncio.run(both()) == (b"ab", [b"ab"])
    assert Request("POST", "/", body=memoryview(b"ab")).has_arrived
    assert Request("POST", "/", body=b"").has_arrived
    assert not Request("POST", "/", body=pieces()).has_arrived


@pytest.mark.parametrize("body", [b"ab", b""])
def test_body_that_is_there_is_returned_at_once_and_kept(body: bytes) -> None:
    request = Request("POST", "/", body=body)
    assert request.body_at_once() == body
    assert asyncio.run(request.body()) == body


def test_body_that_is_to_come_or_was_streamed_is_not_returned_at_once() -> None:
    async def streamed(request: Request) -> bytes | None:
        async for _ in request.stream():
            pass
        return request.body_at_once()

    assert Request("POST", "/", body=pieces()).body_at_once() is None
    assert asyncio.run(streamed(Request("POST", "/", body=b"ab"))) is None


def test_empty_body_has_no_pieces() -> None:
    async def streamed() -> list[bytes]:
        return [piece async for piece in Request("POST", "/").stream()]

    assert asyncio.run(streamed()) == []
