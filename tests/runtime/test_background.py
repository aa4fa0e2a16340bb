"""background.py: tasks after the response, when something fails, and at the end of the server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import httpx
import pytest

from system import wait_until
from tinysvc import (
    Background,
    ConfigurationError,
    HTTPError,
    Request,
    Response,
    Service,
    cpu_route,
    io_resource,
    io_route,
)
from tinysvc.runtime.background import BackgroundTasks
from tinysvc.testing import serving

user: ContextVar[str] = ContextVar("user", default="nobody")


class Record(list[Any]):
    """What was done, in order."""

    async def note(self, *words: str) -> None:
        self.append(" ".join([*words, user.get()]))

    async def __call__(self, word: str) -> None:
        self.append(word)

    def in_thread(self, word: str) -> None:
        self.append((word, threading.current_thread() is not threading.main_thread(), user.get()))


@pytest.fixture
def done() -> Record:
    return Record()


def test_async_def_def_and_objects_are_called_after_the_response(done: Record) -> None:
    @io_route("/", methods=["POST"])
    async def handler(background: Background) -> str:
        user.set("ada")
        background.add(done.note, "note")
        background.add(done.in_thread, "thread")
        background.add(done, "object")
        background.add(partial(done.note, "partial"))
        done.append("handler")
        return "fine"

    with serving(Service(handler)) as url:
        assert httpx.post(url).text == "fine"
        wait_until(lambda: len(done) == 5, "all tasks have run")
    assert done[0] == "handler"
    assert set(done[1:]) == {"note ada", ("thread", True, "ada"), "object", "partial ada"}


def test_client_has_the_response_while_a_task_runs() -> None:
    go_on = threading.Event()

    @io_route("/")
    async def handler(background: Background) -> str:
        background.add(go_on.wait, 20)
        return "fine"

    with serving(Service(handler)) as url:
        assert httpx.get(url).text == "fine"
        go_on.set()


def test_def_handlers_and_tasks_can_add_tasks(done: Record) -> None:
    def first(background: Background) -> None:
        background.add(done.note, "second")

    @io_route("/")
    def handler(background: Background) -> None:
        background.add(first, background)

    with serving(Service(handler)) as url:
        assert httpx.get(url).status_code == 204
        wait_until(lambda: done == ["second nobody"], "the second task has run")


def test_tasks_start_when_the_resources_are_closed(done: Record) -> None:
    @io_resource
    async def transaction(request: Request, background: Background) -> AsyncIterator[str]:
        background.add(done.note, "of the resource")
        yield "transaction"
        await asyncio.sleep(0)
        done.append("commit")

    @io_route("/")
    async def handler(transaction: str, background: Background) -> None:
        background.add(done.note, "of the handler")

    @io_route("/stream")
    async def stream(transaction: str) -> AsyncIterator[str]:
        yield "a"
        done.append("streamed")

    with serving(Service(handler, stream, transaction)) as url:
        assert httpx.get(url).status_code == 204
        wait_until(lambda: len(done) == 3, "both tasks have run")
        assert done == ["commit", "of the resource nobody", "of the handler nobody"]
        done.clear()
        assert httpx.get(f"{url}/stream").text == "a"
        wait_until(lambda: len(done) == 3, "the task has run")
        assert done == ["streamed", "commit", "of the resource nobody"]


@pytest.mark.parametrize("streams", [False, True])
def test_tasks_of_a_failed_handler_are_discarded(done: Record, streams: bool) -> None:
    @io_route("/plain")
    async def plain(background: Background) -> None:
        background.add(done.note, "never")
        raise HTTPError(409, "Not this.")

    @io_route("/stream")
    async def stream(background: Background) -> AsyncIterator[str]:
        background.add(done.note, "never")
        yield "a"
        raise ValueError("half-way")

    with serving(Service(plain, stream), max_background=1, raise_errors=False) as url:
        for _ in range(3):  # and they count no longer: else the second would be a 503
            if streams:
                with pytest.raises(httpx.RemoteProtocolError):
                    httpx.get(f"{url}/stream")
            else:
                assert httpx.get(f"{url}/plain").status_code == 409
    assert done == []


def test_tasks_start_when_the_client_of_a_stream_disconnects(done: Record) -> None:
    @io_route("/")
    async def stream(background: Background) -> AsyncIterator[bytes]:
        background.add(done.note, "saved")
        while True:
            yield b"x" * 100_000
            await asyncio.sleep(0)

    with serving(Service(stream)) as url:
        host, port = httpx.URL(url).host, httpx.URL(url).port
        with socket.create_connection((host, port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100)
        wait_until(lambda: done == ["saved nobody"], "the task has run")


@pytest.mark.parametrize("error", [ValueError("a secret"), SystemExit(3), asyncio.CancelledError()])
def test_error_of_a_task_is_logged_with_its_request(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise error

    @io_route("/")
    async def handler(background: Background) -> str:
        background.add(fails)
        return "fine"

    with serving(Service(handler), raise_errors=False) as url:
        assert httpx.get(url, headers={"x-request-id": "r1"}).text == "fine"
        wait_until(lambda: type(error).__name__ in caplog.text, "it is logged")
        assert httpx.get(url).text == "fine"  # the server goes on
    assert "fails of GET / (request r1) failed" in caplog.text
    assert "in fails" in caplog.text


def test_tasks_above_the_limit_get_503() -> None:
    go_on = threading.Event()

    @io_route("/")
    async def handler(background: Background, count: int = 1) -> str:
        for _ in range(count):
            background.add(go_on.wait, 20)
        return "fine"

    with serving(Service(handler), max_background=2) as url:
        assert httpx.get(url, params={"count": 3}).status_code == 503
        assert httpx.get(url, params={"count": 2}).text == "fine"
        answer = httpx.get(url)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "max_background" in answer.json()["detail"]
        go_on.set()
        wait_until(lambda: httpx.get(url).text == "fine", "there is room again")


def test_drain_waits_for_tasks(done: Record) -> None:
    @io_resource
    async def database() -> AsyncIterator[list[str]]:
        yield done
        done.append("closed")

    async def save(database: list[str], go_on: asyncio.Event) -> None:
        await asyncio.sleep(0.1)
        database.append("saved")

    @io_route("/")
    async def handler(database: list[str], background: Background) -> None:
        background.add(save, database, asyncio.Event())

    with serving(Service(handler, database)) as url:
        httpx.get(url)
    assert done == ["saved", "closed"]


def test_tasks_are_cancelled_after_the_shutdown_timeout(done: Record, caplog: pytest.LogCaptureFixture) -> None:
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("cleaned up")

    @io_route("/")
    async def handler(background: Background) -> None:
        background.add(endless)

    with serving(Service(handler), shutdown_timeout=0.1) as url:
        httpx.get(url)
    assert done == ["cleaned up"]
    assert "1 background tasks were cancelled because the server ends (" in caplog.text


@pytest.mark.asyncio
async def test_closed_server_starts_no_task(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks(1)
    background = Background(tasks)
    background.add(print)
    await tasks.drain(0)
    background.start()
    assert "the background task print was not started" in caplog.text


def generator() -> Any:
    yield


async def coroutine() -> None:
    pass


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (lambda: coroutine(), r"background.add\(coroutine, ...\), not a coroutine"),
        (lambda: "text", "takes a function and its arguments, not 'text'"),
        (lambda: generator, "not a generator"),
        (lambda: partial(generator), "not a generator"),
    ],
)
def test_non_function_is_refused_when_it_is_added(what: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        Background().add(what())


def test_wrong_arguments_are_an_error_in_the_handler() -> None:
    with pytest.raises(TypeError, match="too many positional arguments"):
        Background().add(coroutine, 1)


def test_resource_called_background_is_the_authors() -> None:
    @io_resource
    async def background() -> str:
        return "mine"

    @io_route("/")
    async def handler(background: str) -> str:
        return background

    with serving(Service(handler, background)) as url:
        assert httpx.get(url).text == "mine"


@pytest.mark.asyncio
async def test_handler_and_resources_share_the_tasks_of_their_request() -> None:
    seen: list[Background] = []

    async def handler(request: Request) -> Response:
        seen.extend([Background.of_request(request), Background.of_request(request)])
        return Response(b"")

    request = Request("GET", "/")
    await BackgroundTasks(1).around(handler)(request)
    assert seen[0] is seen[1]
    assert Background.of_request(request) is not seen[0]  # nothing refers to a request that is over


def test_cpu_route_cannot_take_background() -> None:
    @cpu_route("/")
    def handler(background: Background) -> None: ...

    with (
        pytest.raises(ConfigurationError, match="takes Background, but @cpu_route runs it in a worker"),
        serving(Service(handler)),
    ):
        pass


def test_middleware_may_return_other_content(done: Record) -> None:
    async def middleware(request: Request, call_next: Any) -> Response:
        await call_next(request)
        return Response("other")

    @io_route("/")
    async def handler(background: Background) -> AsyncIterator[str]:
        background.add(done.note, "done")
        yield "a"

    with serving(Service(handler, middleware=[middleware])) as url:
        assert httpx.get(url).text == "other"
        wait_until(lambda: done == ["done nobody"], "the task has run")
