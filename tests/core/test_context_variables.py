"""core/context_variables.py: a request has one context in all its code, and the next request has another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tinysvc import Batch, Request, Response, Service, WebSocket, cpu_route, io_resource, io_route
from tinysvc.core.context_variables import ThreadContext, differs_from, restore
from tinysvc.core.responses import Handler
from tinysvc.testing import serving

user: ContextVar[str] = ContextVar("user", default="nobody")
bare: ContextVar[str] = ContextVar("bare")


async def bind_user(request: Request, call_next: Handler) -> Response:
    if name := request.headers.get("x-user"):
        user.set(name)
    return await call_next(request)


async def scoped_user(request: Request, call_next: Handler) -> Response:
    token = user.set("scoped")
    try:
        return await call_next(request)
    finally:
        user.reset(token)


@io_route("/who")
async def who() -> str:
    return user.get()


@io_route("/who-thread")
def who_thread() -> str:
    seen = user.get()
    user.set("set in a thread")
    return seen


@io_route("/who-stream")
async def who_stream() -> AsyncIterator[str]:
    token = user.set(user.get() + "+")
    yield user.get() + " "
    await asyncio.sleep(0)
    yield user.get()
    user.reset(token)


@io_route("/who-thread-stream")
def who_thread_stream() -> Iterator[str]:
    token = user.set(user.get() + "+")
    yield user.get() + " "
    yield user.get()
    user.reset(token)


@io_route("/who-socket")
async def who_socket(socket: WebSocket) -> None:
    await socket.send(user.get())


@cpu_route("/who-cpu")
def who_cpu() -> str:
    seen = user.get()
    user.set("set by a job")
    return seen


@cpu_route("/who-cpu-stream")
def who_cpu_stream() -> Iterator[str]:
    yield user.get()
    user.set("set by a stream")


@cpu_route("/who-batch", batch=Batch(2, wait=0.01))
def who_batch(requests: list[Request]) -> list[str]:
    seen = user.get()
    user.set("set by a batch")
    if any(request.raw_query for request in requests):
        raise ValueError("for this request only")
    return [seen for _ in requests]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = who, who_thread, who_stream, who_thread_stream, who_socket, who_cpu, who_cpu_stream, who_batch
    with serving(Service(*routes, middleware=[bind_user]), cpu_workers=1, raise_errors=False) as url:
        yield url


IO_PATHS = "/who", "/who-thread", "/who-stream", "/who-thread-stream"


@pytest.mark.parametrize("path", IO_PATHS)
def test_next_request_of_a_connection_does_not_see_a_variable(url: str, path: str) -> None:
    with httpx.Client(base_url=url) as client:
        ports = set()
        for name in ("ada", "", "bob", ""):
            answer = client.get(path, headers={"x-user": name} if name else {})
            expected = name or "nobody"
            assert answer.text == (f"{expected}+ {expected}+" if "stream" in path else expected)
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(ports) == 1


def test_pipelined_request_does_not_see_a_variable(url: str) -> None:
    import socket

    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(
            b"GET /who HTTP/1.1\r\nhost: a\r\nx-user: ada\r\n\r\n"
            b"GET /who HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.count(b"ada") == 1
    assert answer.count(b"nobody") == 1


def test_socket_sees_the_variables_of_its_request_only(url: str) -> None:
    address = url.replace("http", "ws") + "/who-socket"
    with connect(address, additional_headers={"x-user": "ada"}) as socket:
        assert socket.recv() == "ada"
    with connect(address) as socket:
        assert socket.recv() == "nobody"


@pytest.mark.parametrize("path", ["/who-cpu", "/who-cpu-stream", "/who-batch"])
def test_next_job_of_a_worker_does_not_see_a_variable(url: str, path: str) -> None:
    assert [httpx.get(url + path).text.strip('"') for _ in range(3)] == ["nobody"] * 3


def test_repeated_batch_does_not_see_a_variable(url: str) -> None:
    async def both() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(base_url=url) as client:
            return await asyncio.gather(client.get("/who-batch"), client.get("/who-batch?fails"))

    for _ in range(5):
        good, bad = asyncio.run(both())
        assert (good.text, bad.status_code) == ("nobody", 500)


# Resources


told: list[Any] = []


@io_resource
def in_thread(request: Request) -> Iterator[str]:
    token = user.set("resource")
    yield "in a thread"
    told.append(user.get())
    user.reset(token)
    told.append(user.get())


@io_resource
async def on_loop(request: Request) -> AsyncIterator[str]:
    token = user.set("resource")
    yield "on the loop"
    told.append(user.get())
    user.reset(token)
    told.append(user.get())


@io_route("/a")
async def with_thread(in_thread: str) -> str:
    return user.get()


@io_route("/b")
def with_loop(on_loop: str) -> str:
    return user.get()


@io_route("/c")
def with_thread_in_thread(in_thread: str) -> Iterator[str]:
    yield user.get() + " "
    yield user.get()


@io_route("/d")
async def with_loop_stream(on_loop: str) -> AsyncIterator[str]:
    yield user.get() + " "
    yield user.get()


async def last_seen(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    told.append(f"behind call_next {user.get()}")
    return response


@pytest.mark.parametrize("path", ["/a", "/b", "/c", "/d"])
def test_resource_handler_and_cleanup_share_a_context(path: str) -> None:
    service = Service(with_thread, with_loop, with_thread_in_thread, with_loop_stream, in_thread, on_loop)
    with serving(service) as url, httpx.Client(base_url=url) as client:
        for _ in range(2):
            told.clear()
            text = client.get(path).text
            assert text == ("resource" if path < "/c" else "resource resource")
            assert told == ["resource", "nobody"]


def test_middleware_sees_the_last_values_of_a_thread() -> None:
    told.clear()
    with serving(Service(with_thread, who_thread, in_thread, middleware=[last_seen])) as url:
        httpx.get(f"{url}/who-thread")
        httpx.get(f"{url}/a")
    assert told == ["behind call_next set in a thread", "resource", "nobody", "behind call_next nobody"]


@pytest.mark.parametrize("path", ["/who-stream", "/who-thread-stream"])
def test_stream_keeps_the_variables_that_middleware_resets(path: str) -> None:
    with serving(Service(who_stream, who_thread_stream, middleware=[scoped_user])) as url:
        assert httpx.get(url + path).text == "scoped+ scoped+"


# The parts


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_differs_from_compares_by_identity() -> None:
    variable: ContextVar[object] = ContextVar("variable")

    def check() -> None:
        base = copy_context()
        assert not differs_from(base)
        variable.set(Unequal())
        assert differs_from(base)
        base = copy_context()
        assert not differs_from(base)
        variable.set(Unequal())
        assert differs_from(base)
        restore(base)
        assert not differs_from(base)

    Context().run(check)


def test_thread_resets_a_variable_with_a_default() -> None:
    class Task:
        pass

    def check() -> None:
        task = Task()
        threads = ThreadContext.of(task)
        tokens = threads.within(lambda: (user.set("x"), bare.set("y")))()
        threads.copy_back()
        assert (user.get(), bare.get()) == ("x", "y")
        assert ThreadContext.of(task) is threads

        def reset() -> None:
            user.reset(tokens[0])
            bare.reset(tokens[1])

        threads.within(reset)()
        threads.copy_back()
        assert user.get() == "nobody"
        assert ThreadContext.of(Task()) is not threads

    Context().run(check)
