"""core/request_context.py: log lines name their request, and all kinds of code find their request."""

from __future__ import annotations

import asyncio
import re
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

import calls_jobs
from commands import served, tinysvc
from tinysvc import Background, Event, Request, Response, Service, WebSocket, call, io_resource, io_route, request_id
from tinysvc.core import request_context as current
from tinysvc.core.request_context import route_name
from tinysvc.testing import serving

SERVICE = """
import asyncio, logging, time
from tinysvc import Event, Handler, Request, Response, Service, cpu_route, io_resource, io_route

log = logging.getLogger("shop")
@io_route("/async/{name}")
async def in_task(name: str) -> int:
    await asyncio.sleep(0)
    log.warning("async %s", name)
    return 1

@io_route("/thread")
def in_thread() -> int:
    log.warning("thread")
    return 1

@io_route("/stream")
async def stream():
    for number in range(2):
        log.warning("stream %d", number)
        yield str(number)

@io_route("/thread-stream")
def thread_stream():
    log.warning("thread-stream")
    yield "a"

@io_resource
async def opened(request: Request):
    log.warning("open")
    yield 1
    log.warning("close")

@io_route("/resource")
async def with_resource(opened) -> int:
    return opened

@io_route("/many")
async def many() -> int:
    log.warning("first\\nsecond 100%")
    return 1

@io_route("/waits")
async def waits() -> int:
    try:
        log.warning("waits")
        await asyncio.sleep(60)
    finally:
        log.warning("left")

@cpu_route("/cpu")
def cpu() -> int:
    log.warning("cpu")
    return 1

async def middleware(request: Request, call_next: Handler) -> Response:
    log.warning("middleware")
    return await call_next(request)

@io_route("/within")
async def within() -> int:
    return 1

service = Service(
    in_task, in_thread, stream, thread_stream, opened, with_resource, many, waits, cpu,
    Service(within, middleware=[middleware]),
)
"""


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_log_line_names_route_and_request(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    paths = {
        "/async/a": (["async a"], "/async/{name}"),
        "/thread": (["thread"], "/thread"),
        "/stream": (["stream 0", "stream 1"], "/stream"),
        "/thread-stream": (["thread-stream"], "/thread-stream"),
        "/resource": (["open", "close"], "/resource"),
        "/many": (["first"], "/many"),
        "/within": (["middleware"], "/within"),
        "/cpu": (["cpu"], "/cpu"),
        "/waits": (["waits", "left"], "/waits"),
    }
    with served(*tinysvc("service.py", *options), cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url) as client:
            for path in paths:
                headers = {"x-request-id": "id-of" + path.replace("/", "-")}
                if path == "/waits":
                    with pytest.raises(httpx.ReadTimeout):
                        client.get(path, headers=headers, timeout=1)
                else:
                    assert client.get(path, headers=headers, timeout=20).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
    lines = [re.sub(r"(?<=shop)\[[0-9]+\]|worker [0-9]+, ", "", line) for line in errors.splitlines()]
    for path, (messages, route) in paths.items():
        for message in messages:
            where = f"[GET {route}, request id-of{path.replace('/', '-')}]"
            assert f"WARNING shop: {message} {where}" in lines
    assert "second 100%" in lines


@io_route("/")
def in_thread() -> int:
    return len(current.owner_by_thread)


def test_closed_connection_is_forgotten() -> None:
    before = len(current.owner_by_task)
    with serving(Service(in_thread)) as url:
        for _ in range(3):
            assert httpx.get(url, timeout=20).json() == 1
    assert len(current.owner_by_task) == before
    assert not current.owner_by_thread


seen: list[str] = []


def look(where: str) -> str:
    seen.append(f"{where}: {route_name.get()}, {request_id.get()}")
    return where


@io_route("/async")
async def in_task() -> None:
    look("before")
    await asyncio.sleep(0)
    look("behind")


@io_route("/def")
def in_a_thread() -> None:
    look("thread")


@io_route("/stream")
async def stream() -> AsyncIterator[str]:
    try:
        yield look("first")
        await asyncio.sleep(0)
        yield look("second")
    finally:
        look("end")


@io_route("/def-stream")
def thread_stream() -> Iterator[str]:
    try:
        yield look("first")
        yield look("second")
    finally:
        look("end")


@io_route("/events")
async def events() -> AsyncIterator[Event]:
    yield Event(look("event"))


@io_resource
async def opened(request: Request) -> AsyncIterator[str]:
    look("open")
    yield "opened"
    look("close")


@io_resource
def opened_in_a_thread(request: Request) -> Iterator[str]:
    look("open in a thread")
    yield "opened"
    look("close in a thread")


@io_route("/resources")
async def with_resources(opened: str, opened_in_a_thread: str) -> AsyncIterator[str]:
    yield look("stream")


async def middleware(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    look("outside")
    response = await call_next(request)
    look("inside")
    return response


@io_route("/apart")
async def apart(opened: str, opened_in_a_thread: str) -> AsyncIterator[str]:
    yield look("stream")


@io_route("/fails")
async def fails() -> None:
    raise LookupError


def missing(request: Request, error: Exception) -> Response:
    return Response(look("error handler"), 404)


@io_route("/background")
async def background(background: Background) -> None:
    async def in_task() -> None:
        look("task")
        background.add(look, "thread")

    background.add(in_task)


@io_route("/limited", timeout=20, limit=2)
async def limited() -> None:
    look("limited")


service = Service(
    *(in_task, in_a_thread, stream, thread_stream, events, opened, opened_in_a_thread, with_resources, fails),
    *(background, limited, Service(apart, opened, opened_in_a_thread, middleware=[middleware])),
    error_handlers={LookupError: missing},
)


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("/async", ["before", "behind"]),
        ("/def", ["thread"]),
        ("/stream", ["first", "second", "end"]),
        ("/def-stream", ["first", "second", "end"]),
        ("/events", ["event"]),
        ("/resources", ["open", "open in a thread", "stream", "close in a thread", "close"]),
        ("/apart", ["outside", "open", "open in a thread", "stream", "inside", "close in a thread", "close"]),
        ("/fails", ["error handler"]),
        ("/background", ["task", "thread"]),
        ("/limited", ["limited"]),
    ],
)
def test_all_kinds_of_code_find_their_request(path: str, places: list[str]) -> None:
    seen.clear()
    outside = request_id.get(), route_name.get()  # tests of code for workers set them here
    with serving(service, cpu_workers=0) as url, httpx.Client(base_url=url, timeout=20) as client:
        for name in ("first", "second"):  # on one connection
            client.get(path, headers={"x-request-id": name})
    expected = [f"{place}: GET {path}, {name}" for name in ("first", "second") for place in places]
    assert sorted(seen) == sorted(expected) if path == "/background" else seen == expected
    assert not current.owner_by_task
    assert (request_id.get(), route_name.get()) == outside


@io_route("/socket")
async def socket(socket: WebSocket, opened: str) -> None:
    look("handshake")
    async for message in socket:
        await socket.send(look(str(message)))


@pytest.mark.parametrize("is_within", [False, True], ids=["alone", "within middleware"])
def test_websocket_keeps_its_request_after_the_handshake(is_within: bool) -> None:
    seen.clear()
    headers = {"x-request-id": "mine"}
    with (
        serving(Service(socket, opened, middleware=[middleware] if is_within else [])) as url,
        connect(url.replace("http", "ws") + "/socket", additional_headers=headers) as client,
    ):
        client.send("message")
        assert client.recv(20) == "message"
    places = ["open", "handshake", "message", "close"]
    expected = ["outside", *places, "inside"] if is_within else places
    assert seen == [f"{where}: GET /socket, mine" for where in expected]


together = threading.Barrier(2)


@io_route("/together/{place}")
async def at_the_same_time(place: str) -> str:
    await asyncio.to_thread(together.wait, 20)
    return request_id.get()


@io_route("/together-in-threads/{place}")
def in_threads_at_the_same_time(place: str) -> str:
    together.wait(20)
    return request_id.get()


@pytest.mark.parametrize("path", ["/together", "/together-in-threads"])
def test_concurrent_requests_have_their_own_ids(path: str) -> None:
    with serving(Service(at_the_same_time, in_threads_at_the_same_time)) as url, ThreadPoolExecutor(2) as executor:
        asked = [
            executor.submit(httpx.get, f"{url}{path}/x", headers={"x-request-id": name}, timeout=20)
            for name in ("ada", "bob")
        ]
        assert [each.result().text for each in asked] == ["ada", "bob"]


@io_route("/own")
async def own() -> list[str]:
    async def child() -> str:
        return request_id.get()

    before = await asyncio.create_task(child())
    token = request_id.set(request_id.get() + "!")
    within = [await asyncio.create_task(child()), await asyncio.to_thread(request_id.get)]
    request_id.reset(token)
    return [before, *within, request_id.get()]


@io_route("/sets")
async def sets() -> None:
    request_id.set("another")


def test_tasks_and_threads_of_a_handler_see_the_id_it_sets() -> None:
    with serving(Service(own, sets)) as url, httpx.Client(base_url=url, timeout=20) as client:
        for name in ("first", "second"):
            assert client.get("/own", headers={"x-request-id": name}).json() == ["", f"{name}!", f"{name}!", name]
            client.get("/sets")


@io_route("/calls")
async def calls() -> list[str]:
    return await call(calls_jobs.identity)


@pytest.mark.parametrize("workers", [1, 0])
def test_call_of_a_cpu_handler_passes_the_id_on(workers: int) -> None:
    with (
        serving(Service(calls, calls_jobs.identity), cpu_workers=workers) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        for name in ("first", "second"):
            headers = {"x-request-id": name}
            assert client.get("/calls", headers=headers).json() == [name, "call /identity"]
            assert client.get("/identity", headers=headers).json() == [name, "GET /identity"]
