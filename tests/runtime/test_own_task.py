"""own_task.py: a cancellation by middleware ends the handler, but not the closing of resources."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar

import anyio
import httpx
import pytest
from websockets.sync.client import connect

from system import wait_until
from tinysvc import (
    Background,
    Request,
    Response,
    Service,
    WebSocket,
    cpu_route,
    io_resource,
    io_route,
)
from tinysvc.testing import serving

CallNext = Callable[[Request], Awaitable[Response]]
log: list[str] = []
begun: threading.Event
user: ContextVar[str] = ContextVar("user", default="")

LIMIT = 0.1
"""Seconds that middleware gives: the resources take longer to close."""


@pytest.fixture(autouse=True)
def empty_log() -> None:
    global begun
    begun = threading.Event()
    log.clear()


async def by_asyncio(request: Request, call_next: CallNext) -> Response:
    try:
        async with asyncio.timeout(LIMIT):
            return await call_next(request)
    except TimeoutError:
        log.append("late")
        return Response(b"late", 503)


async def by_anyio(request: Request, call_next: CallNext) -> Response:
    with anyio.move_on_after(LIMIT):
        return await call_next(request)
    log.append("late")
    return Response(b"late", 503)


async def by_wait_for(request: Request, call_next: CallNext) -> Response:
    try:
        return await asyncio.wait_for(call_next(request), LIMIT)
    except TimeoutError:
        log.append("late")
        return Response(b"late", 503)


async def by_task_group(request: Request, call_next: CallNext) -> Response:
    async def fail() -> None:
        await asyncio.sleep(LIMIT)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            return await call_next(request)
    except* ValueError:
        log.append("late")
    return Response(b"late", 503)


@io_resource
async def transaction(request: Request) -> AsyncIterator[str]:
    try:
        yield "open"
    except BaseException:
        log.append("rolling back")
        await asyncio.sleep(3 * LIMIT)
        log.append("rollback")
        raise
    log.append("committing")
    await asyncio.sleep(3 * LIMIT)
    log.append("commit")


@io_resource
def in_thread(request: Request) -> Iterator[str]:
    try:
        yield "open"
    except BaseException:
        log.append("rolling back")
        time.sleep(3 * LIMIT)
        log.append("rollback")
        raise
    log.append("committing")
    time.sleep(3 * LIMIT)
    log.append("commit")


@io_resource
async def within_transaction(transaction: str) -> AsyncIterator[str]:
    try:
        yield transaction
    except BaseException:
        log.append("inner rollback")
        raise
    log.append("inner commit")


@io_route("/io")
async def answers(transaction: str) -> str:
    return transaction


@io_route("/thread")
def answers_in_thread(in_thread: str) -> str:
    return in_thread


@io_route("/both")
async def answers_with_both(transaction: str, in_thread: str) -> str:
    return transaction


@cpu_route("/cpu")
def computes(transaction: str) -> str:
    return transaction


@io_route("/slow", methods=["GET", "POST"])
async def slow(within_transaction: str) -> str:
    begun.set()
    await asyncio.sleep(20)
    return ""


@io_route("/slow-thread")
def slow_in_thread(in_thread: str) -> str:
    time.sleep(2 * LIMIT)
    return ""


@cpu_route("/slow-cpu")
def computes_long(within_transaction: str) -> str:
    time.sleep(20)
    return ""


ROUTES = (answers, answers_in_thread, answers_with_both, computes, slow, slow_in_thread, computes_long)
RESOURCES = (transaction, in_thread, within_transaction)
SCOPES = [by_asyncio, by_anyio, by_wait_for, by_task_group]


@pytest.mark.parametrize("middleware", SCOPES)
def test_cancel_from_middleware_does_not_end_a_commit_half_way(middleware: Callable[..., Awaitable[Response]]) -> None:
    with serving(Service(*ROUTES, *RESOURCES, middleware=[middleware]), cpu_workers=1, raise_errors=False) as url:
        for path in ("io", "thread", "cpu"):
            log.clear()
            assert httpx.get(f"{url}/{path}").status_code == 503
            assert log == ["committing", "commit", "late"], path
        log.clear()
        assert httpx.get(f"{url}/both").status_code == 503
        assert log == ["committing", "commit", "committing", "commit", "late"]


@pytest.mark.parametrize("middleware", SCOPES)
def test_cancel_from_middleware_reaches_the_handler_and_not_the_rollback(
    middleware: Callable[..., Awaitable[Response]],
) -> None:
    with serving(Service(*ROUTES, *RESOURCES, middleware=[middleware]), cpu_workers=1, raise_errors=False) as url:
        for path in ("slow", "slow-cpu"):
            log.clear()
            assert httpx.get(f"{url}/{path}").status_code == 503
            assert log == ["inner rollback", "rolling back", "rollback", "late"], path
        log.clear()
        assert httpx.get(f"{url}/slow-thread").status_code == 503
        assert log == ["rolling back", "rollback", "late"]


async def plain(request: Request, call_next: CallNext) -> Response:
    response = await call_next(request)
    response.headers.append(("x-user", user.get()))
    return response


async def around_pieces(request: Request, call_next: CallNext) -> Response:
    """Replace the stream by one that has a time-out around all that is left of it."""
    response = await call_next(request)
    pieces = response.content
    assert isinstance(pieces, AsyncIterator)

    async def limited() -> AsyncIterator[bytes]:
        try:
            async with asyncio.timeout(LIMIT):
                async for piece in pieces:
                    yield piece
        except TimeoutError:
            log.append("late")

    return Response(limited(), content_type="text/plain")


@io_route("/pieces")
async def streams(transaction: str) -> AsyncIterator[str]:
    yield transaction
    yield "end"


@io_route("/endless")
async def streams_on(transaction: str) -> AsyncIterator[str]:
    async with asyncio.timeout(20):  # entered and left in one task
        yield "a"
        begun.set()
        await asyncio.Event().wait()


def test_cancel_from_a_stream_of_middleware_does_not_end_a_commit_half_way() -> None:
    service = Service(streams, streams_on, transaction, middleware=[around_pieces])
    with serving(service, raise_errors=False) as url:
        assert httpx.get(f"{url}/pieces").text == "openend"
        assert log == ["committing", "commit", "late"]
        log.clear()
        assert httpx.get(f"{url}/endless").text == "a"
        assert log == ["rolling back", "rollback", "late"]


def test_stream_that_the_client_or_a_drain_ends_rolls_back() -> None:
    with serving(Service(streams_on, transaction, middleware=[plain]), raise_errors=False) as url:
        with httpx.stream("GET", f"{url}/endless") as response:
            assert next(response.iter_text()) == "a"
        wait_until(lambda: "rollback" in log, "the resource is closed")
        log.clear()
        begun.clear()
        client = httpx.Client()
        with client.stream("GET", f"{url}/endless") as response:
            assert next(response.iter_text()) == "a"
            wait_until(begun.is_set, "the stream waits")
            leaves = threading.Thread(target=client.close)
            leaves.start()
        leaves.join()
        wait_until(lambda: "rollback" in log, "the resource is closed")
    assert log == ["rolling back", "rollback"]


def test_drain_ends_a_stream_in_order() -> None:
    @io_route("/lines")
    async def lines(transaction: str) -> AsyncIterator[dict[str, int]]:
        yield {"n": 1}
        begun.set()
        await asyncio.Event().wait()

    with httpx.Client() as client:
        with serving(Service(lines, transaction, middleware=[plain]), shutdown_timeout=20) as url:
            request = client.build_request("GET", f"{url}/lines")
            response = client.send(request, stream=True)
            wait_until(begun.is_set, "the stream waits")
        assert response.read() == b'{"n":1}\n'
    assert log == ["rolling back", "rollback"]


@io_resource
async def group(request: Request) -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


@io_resource
async def anyio_group(request: Request) -> AsyncIterator[anyio.abc.TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group


async def fail() -> None:
    begun.set()
    raise ValueError("of a task")


@io_route("/group")
async def starts(group: asyncio.TaskGroup, within_transaction: str) -> str:
    group.create_task(fail())
    await asyncio.sleep(20)
    return ""


@io_route("/anyio-group")
async def starts_in_anyio(within_transaction: str, anyio_group: anyio.abc.TaskGroup) -> str:
    anyio_group.start_soon(fail)
    await asyncio.sleep(20)
    return ""


@io_route("/group-stream")
async def streams_and_starts(group: asyncio.TaskGroup, within_transaction: str) -> AsyncIterator[str]:
    yield "a"
    group.create_task(fail())
    while True:
        yield "b" * 65536


@io_route("/group-waits")
async def waits(group: asyncio.TaskGroup) -> str:
    async def work() -> None:
        await asyncio.sleep(0.01)
        log.append("worked")

    group.create_task(work())
    return "answered"


@pytest.mark.parametrize("middleware", [plain, by_anyio])
def test_task_group_of_a_resource_cancels_the_handler(
    middleware: Callable[..., Awaitable[Response]], caplog: pytest.LogCaptureFixture
) -> None:
    routes = starts, starts_in_anyio, streams_and_starts, waits
    service = Service(*routes, group, anyio_group, within_transaction, transaction, middleware=[middleware])
    with serving(service, raise_errors=False) as url:
        for path in ("group", "anyio-group"):
            log.clear()
            assert httpx.get(f"{url}/{path}").status_code == 500
            assert log == ["inner rollback", "rolling back", "rollback"]
        log.clear()
        with httpx.stream("GET", f"{url}/group-stream") as response, pytest.raises(httpx.RemoteProtocolError):
            response.read()
        wait_until(lambda: "rollback" in log, "the resource is closed")
        assert log == ["inner rollback", "rolling back", "rollback"]
        log.clear()
        assert httpx.get(f"{url}/group-waits").text == "answered"
        assert log == ["worked"]
    assert caplog.text.count("ValueError: of a task") == 3


def test_task_group_that_fails_between_two_pieces_closes_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    may_fail = asyncio.Event()

    async def fail_later() -> None:
        await may_fail.wait()
        raise ValueError("of a task")

    async def holds(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        may_fail.set()
        await asyncio.sleep(LIMIT)
        assert log == ["inner rollback", "rolling back"]
        return response

    @io_route("/")
    async def handler(group: asyncio.TaskGroup, within_transaction: str) -> AsyncIterator[str]:
        group.create_task(fail_later())
        yield "a"
        yield "b"

    service = Service(handler, group, within_transaction, transaction, middleware=[holds])
    with serving(service, raise_errors=False) as url, pytest.raises(httpx.HTTPError):
        httpx.get(url)
    assert log == ["inner rollback", "rolling back", "rollback"]
    assert caplog.text.count("ValueError: of a task") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_disconnect_cancels_the_handler_without_an_error(method: str, caplog: pytest.LogCaptureFixture) -> None:
    @io_route("/", methods=[method], on_disconnect="cancel")
    async def handler(within_transaction: str) -> str:
        begun.set()
        await asyncio.sleep(20)
        return ""

    service = Service(handler, within_transaction, transaction, middleware=[plain])
    with serving(service, raise_errors=False) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.request(method, url, timeout=0.3)
        wait_until(lambda: "rollback" in log, "the resource is closed")
    assert log == ["inner rollback", "rolling back", "rollback"]
    assert not caplog.records


def test_socket_closes_its_resources_within_a_time_out_of_middleware() -> None:
    @io_route("/")
    async def echo(within_transaction: str, socket: WebSocket) -> None:
        async for message in socket:
            await socket.send(message)

    service = Service(echo, within_transaction, transaction, middleware=[by_anyio])
    with serving(service, raise_errors=False) as url, connect(url.replace("http", "ws")) as socket:
        socket.send("a")
        assert socket.recv() == "a"
        wait_until(lambda: "late" in log, "the time is over")
    assert log == ["inner rollback", "rolling back", "rollback", "late"]


@io_resource
async def sets_user(request: Request) -> AsyncIterator[None]:
    token = user.set("ada")
    yield
    log.append(user.get())
    user.reset(token)


@io_route("/user")
async def tells_user(sets_user: None) -> str:
    name = user.get()
    user.set("eve")
    return name


@io_route("/user-stream")
async def streams_user(sets_user: None) -> AsyncIterator[str]:
    yield user.get()
    user.set("eve")
    yield user.get()


def test_variables_are_the_same_in_resource_handler_and_cleanup() -> None:
    with serving(Service(tells_user, streams_user, sets_user, middleware=[plain])) as url, httpx.Client() as client:
        response = client.get(f"{url}/user")
        assert (response.text, response.headers["x-user"]) == ("ada", "")
        response = client.get(f"{url}/user-stream")
        assert (response.text, response.headers["x-user"]) == ("adaeve", "ada")
        assert client.get(f"{url}/user").text == "ada"
    assert log == ["eve", "eve", "eve"]


def test_middleware_sees_variables_of_the_handler() -> None:
    @io_route("/")
    async def handler(transaction: str) -> str:
        user.set("ada")
        return transaction

    with serving(Service(handler, transaction, middleware=[plain])) as url:
        assert httpx.get(url).headers["x-user"] == "ada"


def test_drain_that_is_over_cancels_the_closing() -> None:
    @io_resource
    async def hangs(request: Request) -> AsyncIterator[None]:
        yield
        begun.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            log.append("cancelled")

    @io_route("/")
    async def handler(hangs: None) -> None: ...

    def get(url: str) -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.get(url)

    service = Service(handler, hangs, middleware=[plain])
    with serving(service, shutdown_timeout=0.5, raise_errors=False) as url:
        client = threading.Thread(target=get, args=[url])
        client.start()
        wait_until(begun.is_set, "the resource closes")
    client.join()
    assert log == ["cancelled"]


def test_background_tasks_start_after_resources_have_closed() -> None:
    @io_route("/")
    async def handler(transaction: str, background: Background) -> str:
        background.add(log.append, "background")
        return transaction

    with serving(Service(handler, transaction, middleware=[plain])) as url:
        assert httpx.get(url).text == "open"
    assert log == ["committing", "commit", "background"]


def test_request_leaves_no_reference_cycle() -> None:
    alive: list[int] = []

    @io_route("/alive")
    async def tells_alive() -> list[int]:
        alive.append(sum(type(each).__name__ == "OwnTask" for each in gc.get_objects()))
        return alive

    service = Service(tells_alive, streams_user, tells_user, sets_user, middleware=[plain])
    with serving(service) as url, httpx.Client() as client:
        gc.collect()
        gc.disable()
        try:
            for path in ("user", "user-stream"):
                client.get(f"{url}/{path}")
            assert client.get(f"{url}/alive").json() == [0]
        finally:
            gc.enable()
