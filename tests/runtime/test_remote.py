"""runtime/remote.py: where a request goes, in which time, and what becomes of a response that is no result."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tinysvc import (
    CallFailed,
    CallTimeout,
    CallUnavailable,
    ConfigurationError,
    Event,
    HTTPError,
    Remote,
    Request,
    Response,
    Service,
    io_route,
)
from tinysvc.binding.replies import UnreadableReply
from tinysvc.runtime.remote import items_of
from tinysvc.testing import serving

started, stopped = threading.Event(), threading.Event()
"""Shared with the server, which runs in a thread of the tests."""


@io_route("/name")
async def name(request: Request) -> str:
    return request.headers.get("x-name", "none")


@io_route("/echo", methods=["POST"])
async def echo(request: Request) -> dict[str, Any]:
    wanted = ("content-type", "request-timeout", "x-call-hops", "x-request-id", "traceparent", "authorization")
    headers = {each: request.headers[each] for each in wanted if each in request.headers}
    return {"headers": headers, "body": (await request.body()).decode("latin-1")}


@io_route("/slow")
async def slow() -> None:
    started.set()
    try:
        await asyncio.sleep(60)
    finally:
        stopped.set()


@io_route("/ticks")
async def ticks() -> AsyncIterator[Event]:
    try:
        while True:
            yield Event("tick")
            await asyncio.sleep(0)
    finally:
        stopped.set()


@io_route("/status/{status}")
async def status(status: int) -> Response:
    return Response(b"a body", status, [("location", "/elsewhere")])


@io_route("/wrong")
async def wrong() -> AsyncIterator[Any]:
    yield 1
    yield [2]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Service(name, echo, slow, ticks, status, wrong)) as url:
        yield url


@pytest.fixture
def remote(url: str) -> Remote:
    started.clear()
    stopped.clear()
    return Remote("other", url)


# Addresses


def test_url_is_used_where_the_setting_names_no_address(url: str, remote: Remote) -> None:
    assert asyncio.run(remote.call("GET", "/name", str, headers={"x-name": "a"})) == "a"
    assert repr(remote) == f"Remote('other', '{url}')"


def test_setting_is_stronger_than_the_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSVC_SERVICES", f"other={url}")
    assert asyncio.run(Remote("other", "http://127.0.0.1:1").call("GET", "/name", str)) == "none"
    assert asyncio.run(Remote("other").call("GET", "/name", str)) == "none"


def test_service_without_an_address_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="no address of the service other is known; set TINYSVC_SERVICES='oth"):
        asyncio.run(Remote("other").call("GET", "/", str))


def test_address_of_grpc_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYSVC_SERVICES", "other=grpc://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="other is called over HTTP by this client, so it needs an address"):
        asyncio.run(Remote("other").call("GET", "/", str))


def test_malformed_url_is_explained() -> None:
    with pytest.raises(ConfigurationError, match="an address is http://host:port"):
        asyncio.run(Remote("other", "ftp://a").call("GET", "/", str))


def test_service_that_does_not_run_is_unavailable() -> None:
    with pytest.raises(CallUnavailable):
        asyncio.run(Remote("other", "http://127.0.0.1:1").call("GET", "/", str))


def test_address_may_have_a_prefix(url: str) -> None:
    with serving(Service(Service(name, prefix="/api"))) as url:
        assert asyncio.run(Remote("other", f"{url}/api").call("GET", "/name", str)) == "none"


def test_https_needs_a_certificate_of_a_known_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    with serving(Service(name), ssl_cert=str(tmp_path / "own.pem")) as url:
        assert url.startswith("https://")
        with pytest.raises(CallFailed):
            asyncio.run(Remote("other", url).call("GET", "/name", str))
        monkeypatch.setenv("TINYSVC_SERVICES_CA", str(tmp_path / "ca.pem"))
        assert asyncio.run(Remote("other", url).call("GET", "/name", str)) == "none"


# Connections


def test_connections_are_reused_and_close_with_the_event_loop(remote: Remote) -> None:
    async def calls() -> Any:
        await asyncio.gather(*(remote.call("GET", "/name", str) for _ in range(3)))
        return await remote._services(), await remote._services()

    first, second = asyncio.run(calls())
    assert first is second
    assert asyncio.run(remote.call("GET", "/name", str)) == "none"  # another loop has connections of its own
    gc.collect()  # a connection that is still open is a ResourceWarning, and so an error


def test_cancelled_call_stops_the_handler(remote: Remote) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(remote.call("GET", "/slow", None))
        await asyncio.to_thread(started.wait, 20)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(stopped.wait, 20)

    asyncio.run(cancelled())


def test_closed_stream_stops_the_handler(remote: Remote) -> None:
    async def closed() -> None:
        async with contextlib.aclosing(remote.stream("GET", "/ticks", Event)) as items:
            assert await anext(items) == Event("tick")
        assert await asyncio.to_thread(stopped.wait, 20)

    asyncio.run(closed())


# Time


def test_timeout_travels_and_ends_the_call(remote: Remote) -> None:
    found = asyncio.run(remote.call("POST", "/echo", dict[str, Any], timeout=20.0))
    assert 0 < int(found["headers"]["request-timeout"].removesuffix("ms")) <= 20_000
    with pytest.raises(CallTimeout):
        asyncio.run(remote.call("GET", "/slow", None, timeout=0.05))


def test_budget_of_the_calling_handler_is_kept(url: str) -> None:
    other = Remote("other", url)

    @io_route("/calls", timeout=5.0)
    async def calls() -> dict[str, Any]:
        found: dict[str, Any] = await other.call("POST", "/echo", dict[str, Any], timeout=60.0)
        return found

    with serving(Service(calls)) as gateway:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        headers = {"traceparent": trace, "authorization": "Bearer secret", "x-request-id": "abc"}
        found = httpx.get(f"{gateway}/calls", headers=headers).json()["headers"]
    assert 0 < int(found["request-timeout"].removesuffix("ms")) <= 5000
    assert (found["traceparent"], found["x-call-hops"], found["x-request-id"]) == (trace, "1", "abc")
    assert "authorization" not in found  # only if the caller passes it


def test_handler_uses_the_connections_of_its_service(url: str) -> None:
    other = Remote("other")

    @io_route("/calls")
    async def calls() -> bool:
        await other.call("GET", "/name", str)
        return len(other._own) == 0

    with serving(Service(calls), services=f"other={url}") as gateway:
        assert httpx.get(f"{gateway}/calls").json() is True


# Responses


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, HTTPError), (418, HTTPError), (500, CallFailed), (503, CallUnavailable), (302, CallFailed)],
)
def test_status_that_is_no_result_is_an_error(remote: Remote, status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        asyncio.run(remote.call("GET", "/status/{status}", None, path={"status": status}))
    assert getattr(caught.value, "answered", status) == status


def test_any_2xx_is_a_result(remote: Remote) -> None:
    for status in (200, 201, 203, 299):
        assert asyncio.run(remote.call("GET", "/status/{status}", bytes, path={"status": status})) == b"a body"


def test_result_of_another_type_is_explained(remote: Remote) -> None:
    with pytest.raises(CallFailed, match="The response cannot be read: Expected `int`, got `object`") as caught:
        asyncio.run(remote.call("POST", "/echo", dict[str, int]))
    assert (caught.value.service, caught.value.answered) == ("other", 200)


def test_item_of_another_type_is_explained(remote: Remote) -> None:
    async def items() -> None:
        stream = remote.stream("GET", "/wrong", int)
        assert await anext(stream) == 1
        with pytest.raises(CallFailed, match="The response cannot be read: Expected `int`, got `array`"):
            await anext(stream)

    asyncio.run(items())


@pytest.mark.parametrize(
    ("parts", "content_type", "body"),
    [
        ({"json": {"a": 1}}, "application/json", '{"a":1}'),
        ({"body": b"ab"}, "application/octet-stream", "ab"),
        ({"body": b"ab", "content_type": "text/csv"}, "text/csv", "ab"),
        ({"form": {"a": "b"}}, "application/x-www-form-urlencoded", "a=b"),
        ({}, None, ""),
    ],
)
def test_body_is_sent(remote: Remote, parts: Any, content_type: str | None, body: str) -> None:
    found = asyncio.run(remote.call("POST", "/echo", dict[str, Any], bearer="t", **parts))
    assert (found["headers"].get("content-type"), found["body"]) == (content_type, body)
    assert found["headers"]["authorization"] == "Bearer t"


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("item", "content_type", "pieces", "items"),
    [
        (int, "application/x-ndjson", [b"1\n", b"2\n3\n"], [1, 2, 3]),
        (int, "application/jsonl", [b"1\n"], [1]),
        (Event, "text/event-stream; charset=utf-8", [b"data: a\n", b"\ndata: b\n\n"], [Event("a"), Event("b")]),
        (str, "text/plain", [b"a\xc3", b"\xa9"], ["a", "é"]),
        (bytes, "image/png", [b"a", b"b"], [b"a", b"b"]),
    ],
)
def test_items_of_a_stream(item: Any, content_type: str, pieces: list[bytes], items: list[Any]) -> None:
    async def found() -> list[Any]:
        return [each async for each in items_of(item, content_type, pieces_of(*pieces))]

    assert asyncio.run(found()) == items


def test_text_that_is_cut_is_no_text() -> None:
    async def found() -> list[Any]:
        return [each async for each in items_of(str, "text/plain", pieces_of(b"a\xc3"))]

    with pytest.raises(UnreadableReply, match="unexpected end of data"):
        asyncio.run(found())
