"""core/sse.py: encoded events, and streams of them from io and cpu handlers, kept alive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import sse_jobs as jobs
from http_ends import get, on_loop, read_response, serving
from tinysvc import Event, EventStream, Service, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work
from tinysvc.testing import serving as serving_service
from tinysvc.wire import sending

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        (Event("a"), b"data: a\n\n"),
        (Event(""), b"data: \n\n"),
        (Event("a\nb\r\nc\rd\n"), b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (Event(" a\v\x85\u2028b"), "data:  a\v\x85\u2028b\n\n".encode()),  # no other line ends
        (Event({"a": "\n"}), b'data: {"a":"\\n"}\n\n'),
        (Event(None, "tick", "7", 0), b"event: tick\nid: 7\nretry: 0\ndata: null\n\n"),
    ],
)
def test_event_is_encoded(event: Event, encoded: bytes) -> None:
    assert event.encode() == encoded


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\0", 1, None])
def test_event_field_must_be_one_line(value: Any) -> None:
    for name in ("event", "id"):
        with pytest.raises(ValueError, match=f"the {name} of an Event must be one line .*; put .* into data"):
            Event("", **{name: value})


@pytest.mark.parametrize("retry", [-1, 1.5, "1", True])
def test_retry_must_be_milliseconds(retry: Any) -> None:
    with pytest.raises(ValueError, match="retry must be a whole number of milliseconds, as in retry=3000"):
        Event("", retry=retry)


@pytest.mark.parametrize("events", [[Event("a")], "a", None, Event("a")])
def test_event_stream_takes_an_iterator(events: Any) -> None:
    with pytest.raises(TypeError, match=r"EventStream takes what a generator returns, as in EventStream\(ticks\(\)\)"):
        EventStream(events)


@pytest.mark.parametrize("way", ["io", "cpu", "thread"])
def test_io_and_cpu_routes_stream_events(way: str) -> None:
    with serving_service(jobs, cpu_workers=1) as url, httpx.Client(base_url=url, timeout=20) as client:
        answer = client.get(f"/{way}", headers={"last-event-id": "2"})
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.text == 'id: 3\ndata: {"n":3}\n\ndata: plain\n\nevent: end\ndata: bye\n\n'
        assert client.get(f"/{way}").text.startswith("id: 1\n")


@io_route("/waits")
async def waits() -> EventStream:
    async def events() -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield Event("never")

    return EventStream(events(), headers={"x-accel-buffering": "no"})


@on_loop
async def test_head_is_sent_at_once_and_comments_keep_the_stream_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "HEARTBEAT", 0.1)
    async with at_work(Service(waits), Settings()) as running, serving(running.handle) as server:
        async with server.client() as client:
            client.send(get("/waits"))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"\r\nx-accel-buffering: no\r\n" in head
            for _ in range(3):
                assert await client.reader.readexactly(8) == b"3\r\n:\n\n\r\n"
        async with server.client() as client:
            client.send(b"GET /waits HTTP/1.0\r\n\r\n")
            await client.reader.readuntil(b"\r\n\r\n")
            assert await client.reader.readexactly(6) == b":\n\n:\n\n"
        while server.connections.open:
            await asyncio.sleep(0.01)


@on_loop
async def test_other_streams_get_no_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "HEARTBEAT", 0.05)
    goes_on = asyncio.Event()

    @io_route("/text")
    async def text() -> AsyncIterator[str]:
        yield "a"
        await goes_on.wait()
        yield "b"

    async with (
        at_work(Service(text), Settings()) as running,
        serving(running.handle) as server,
        server.client() as client,
    ):
        client.send(get("/text"))
        asyncio.get_running_loop().call_later(0.3, goes_on.set)
        answer = await read_response(client.reader)
        assert answer is not None
        assert answer.body == b"ab"
        assert (await client.ask(get("/nowhere"))).status == 404


@on_loop
async def test_each_event_restarts_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "HEARTBEAT", 0.3)

    @io_route("/ticks")
    async def ticks() -> AsyncIterator[Event]:
        for number in range(10):
            yield Event(number)
            await asyncio.sleep(0.05)

    async with (
        at_work(Service(ticks), Settings()) as running,
        serving(running.handle) as server,
        server.client() as client,
    ):
        answer = await client.ask(get("/ticks"))
        assert answer.body == b"".join(b"data: %d\n\n" % number for number in range(10))


def test_disconnect_closes_the_generator(tmp_path: Any) -> None:
    ended = threading.Event()

    @io_route("/endless")
    async def endless() -> EventStream:
        async def events() -> AsyncIterator[Event]:
            try:
                while True:
                    yield Event("x")
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        return EventStream(events())

    with serving_service(Service(endless)) as url, httpx.stream("GET", f"{url}/endless") as answer:
        assert next(answer.iter_lines()) == "data: x"
    assert ended.wait(20)
