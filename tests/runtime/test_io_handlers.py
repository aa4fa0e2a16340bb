"""io_handlers.py: io handlers with deadlines, limits and middleware."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from system import wait_until
from tinysvc import ConfigurationError, Request, Response, Service, io_resource, io_route
from tinysvc.core.responses import Handler
from tinysvc.testing import serving

ended: list[str] = []
come, leave = threading.Semaphore(0), threading.Event()


@io_route("/late", timeout=0.05)
async def late() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("late")


@io_route("/own", timeout=60)
async def own_timeout() -> None:
    raise TimeoutError("of the handler's own")


@io_route("/narrow", limit=2)
def narrow() -> str:
    come.release()
    leave.wait(20)
    return "done"


async def stamped(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.add_header("x-stamped", request.method)
    return response


@io_route("/stamped", middleware=[stamped])
async def with_middleware() -> str:
    return "text"


def test_io_route_past_its_deadline_gets_504(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(late, own_timeout), raise_errors=False) as url:
        answer = httpx.get(f"{url}/late")
        assert (answer.status_code, answer.json()["detail"]) == (504, "The response was not ready within 0.05 s.")
        assert ended == ["late"]
        assert httpx.get(f"{url}/own").status_code == 500
    assert "of the handler's own" in caplog.text


def test_io_route_above_its_limit_gets_503() -> None:
    with serving(Service(narrow, with_middleware)) as url, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(httpx.get, f"{url}/narrow") for _ in range(2)]
        for _ in asked:
            come.acquire()
        answer = httpx.get(f"{url}/narrow")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["detail"] == "This route already handles 2 requests, its limit."
        assert httpx.get(f"{url}/stamped").status_code == 200
        leave.set()
        assert [each.result().text for each in asked] == ["done", "done"]


def test_middleware_of_one_route() -> None:
    with serving(Service(with_middleware, narrow)) as url:
        assert httpx.get(f"{url}/stamped").headers["x-stamped"] == "GET"
        assert httpx.post(f"{url}/stamped").headers["x-stamped"] == "POST"  # its 405 is the route's too
        assert "x-stamped" not in httpx.get(f"{url}/nothing").headers


def test_traceback_of_a_thread_begins_with_the_authors_code(caplog: pytest.LogCaptureFixture) -> None:
    @io_route("/")
    def broken() -> None:
        raise LookupError("here")

    with serving(Service(broken), raise_errors=False) as url:
        assert httpx.get(url).status_code == 500
    (record,) = caplog.records
    assert record.getMessage().count("  File ") == 1
    assert "LookupError: here" in record.getMessage()


def test_timeout_of_a_def_handler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="only an async def can be cancelled"):
        io_route("/", timeout=1)(narrow)


# A disconnect while a thread runs the handler

happened: list[str] = []
tasks: list[asyncio.Task[None]] = []
begun, go_on = threading.Event(), threading.Event()


def works(what: str) -> None:
    begun.set()
    go_on.wait(20)
    happened.append(what)


@io_resource
async def used(request: Request) -> AsyncIterator[str]:
    task = asyncio.current_task()
    assert task is not None
    tasks.append(task)
    try:
        yield "used"
    finally:
        happened.append("what it used is closed")


@io_resource
def opened(used: str) -> Iterator[str]:
    works("it is opened")
    try:
        yield used
    finally:
        happened.append("it is closed")


@io_route("/whole")
def whole(used: str) -> None:
    works("the handler ends")


@io_route("/pieces")
def pieces(used: str) -> Iterator[str]:
    try:
        yield "first"
        works("a piece is made")
        yield "second"
    finally:
        happened.append("the generator is closed")


@io_route("/opens")
async def opens(opened: str) -> None:
    happened.append("never")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/whole", ["the handler ends"]),
        ("/pieces", ["a piece is made", "the generator is closed"]),
        ("/opens", ["it is opened", "it is closed"]),
    ],
)
def test_resources_close_after_the_thread_that_uses_them(path: str, expected: list[str]) -> None:
    for each in (happened, tasks, begun, go_on):
        each.clear()
    with serving(Service(whole, pieces, opens, used, opened)) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert begun.wait(20)
        wait_until(lambda: tasks[0].cancelling(), "the server knows that the client has gone")
        assert happened == []
        go_on.set()
        wait_until(lambda: tasks[0].done(), "the request has ended")
    assert happened == [*expected, "what it used is closed"]
