"""open_resources.py: resources close completely: after a disconnect, a deadline, a drain or a failed task group."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import httpx
import pytest
from anyio import create_task_group

from system import wait_until
from tinysvc import Request, Service, cpu_route, io_resource, io_route
from tinysvc.testing import serving

closing_log: list[str] = []
may_close: threading.Event


@io_resource
async def slow_to_close(request: Request) -> AsyncIterator[str]:
    yield "open"
    closing_log.append("closing")
    await asyncio.to_thread(may_close.wait, 20)
    closing_log.append("closed")


@io_resource
def slow_thread(request: Request) -> Iterator[str]:
    yield "open"
    closing_log.append("closing")
    may_close.wait(20)
    closing_log.append("closed")


@io_route("/slow")
async def slow(slow_to_close: str) -> str:
    return slow_to_close


@io_route("/slow-thread")
def slow_in_thread(slow_thread: str) -> str:
    return slow_thread


@io_route("/slow-stream")
async def slow_stream(slow_to_close: str) -> AsyncIterator[str]:
    yield slow_to_close


@io_route("/slow-timeout", timeout=0.05)
async def slow_timeout(slow_to_close: str) -> str:
    return slow_to_close


@cpu_route("/slow-cpu")
def slow_cpu(slow_to_close: str) -> str:
    return slow_to_close


@pytest.mark.parametrize("path", ["/slow", "/slow-thread", "/slow-stream", "/slow-timeout", "/slow-cpu"])
def test_cleanup_runs_to_its_end_when_the_client_disconnects(path: str) -> None:
    global may_close
    may_close = threading.Event()
    closing_log.clear()
    routes = slow, slow_in_thread, slow_stream, slow_timeout, slow_cpu
    with serving(Service(*routes, slow_to_close, slow_thread), cpu_workers=1, raise_errors=False) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            wait_until(lambda: "closing" in closing_log, "the resource closes")
        for _ in range(3):  # by then the server has seen the disconnect
            assert httpx.get(f"{url}/livez").status_code == 200
        may_close.set()
        wait_until(lambda: "closed" in closing_log, "the resource has closed")
    assert closing_log == ["closing", "closed"]


def test_deadline_of_a_route_does_not_cancel_cleanup() -> None:
    global may_close
    may_close = threading.Event()
    closing_log.clear()
    with serving(Service(slow_timeout, slow_to_close)) as url:
        timer = threading.Timer(0.3, may_close.set)  # long after the deadline
        timer.start()
        assert httpx.get(f"{url}/slow-timeout").text == "open"
        timer.join()
    assert closing_log == ["closing", "closed"]


@io_resource
async def exits(request: Request) -> AsyncIterator[str]:
    try:
        yield "open"
    finally:
        raise SystemExit(3)


@io_route("/exits")
async def exiting(exits: str) -> str:
    return exits


@io_route("/exits-stream")
async def exiting_stream(exits: str) -> AsyncIterator[str]:
    yield exits
    await asyncio.sleep(0)
    while True:
        yield "x" * 65536


@io_resource
async def exits_at_once() -> AsyncIterator[str]:
    yield "once"
    raise SystemExit(4)


@io_route("/once")
async def once(exits_at_once: str) -> str:
    return exits_at_once


def test_system_exit_in_cleanup_does_not_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(exiting, exiting_stream, once, exits, exits_at_once), raise_errors=False) as url:
        assert httpx.get(f"{url}/exits").status_code == 500
        with httpx.stream("GET", f"{url}/exits-stream") as answer:
            next(answer.iter_bytes())
        # The disconnect meets the handler or the server: either closes the stream, and says so.
        wait_until(lambda: caplog.text.count("SystemExit: 3") > 1, "the stream is closed")
        assert httpx.get(f"{url}/once").text == "once"
    assert "the resource exits_at_once cannot be closed" in caplog.text


# Task groups


class Lost(Exception):
    pass


async def lose() -> None:
    raise Lost


@io_resource
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


@io_resource
async def anyio_group() -> AsyncIterator[Any]:
    async with create_task_group() as group:
        yield group


@io_route("/asyncio")
async def fails_in_group(group: asyncio.TaskGroup) -> str:
    group.create_task(lose())
    return "begun"


@io_route("/anyio")
async def fails_in_anyio_group(anyio_group: Any) -> str:
    anyio_group.start_soon(lose)
    return "begun"


@io_route("/cancel")
async def cancels_group(anyio_group: Any) -> str:
    anyio_group.cancel_scope.cancel()
    return "begun"


@io_route("/other")
async def other() -> str:
    return "other"


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [("asyncio", "group", "failed"), ("anyio", "anyio_group", "failed"), ("cancel", "anyio_group", "was cancelled")],
)
def test_failed_task_group_does_not_end_the_server(
    path: str, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(fails_in_group, fails_in_anyio_group, cancels_group, other, group, anyio_group)
    with serving(service, raise_errors=False) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.get(f"{url}/{path}").text == "begun"
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "the resource is lost")
        assert httpx.get(f"{url}/readyz").json()["lost_resources"] == [name]
        assert httpx.get(f"{url}/other").text == "other"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith(f"the resource {name} {words}, and is closed while the server runs")
    assert ("in lose" in errors[0]) == (words == "failed")


def test_task_group_waits_for_its_tasks_when_the_server_ends() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.1)
        done.append("work")

    @io_route("/")
    async def handler(group: asyncio.TaskGroup) -> None:
        group.create_task(work())

    with serving(Service(handler, group)) as url:
        assert httpx.get(url).status_code == 204
    assert done == ["work"]


def test_variables_of_a_resource_are_seen_by_requests() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    @io_resource
    async def sets() -> AsyncIterator[None]:
        token = tenant.set("acme")
        yield
        tenant.reset(token)

    @io_route("/")
    async def handler(sets: None) -> str:
        return tenant.get()

    with serving(Service(handler, sets)) as url:
        assert httpx.get(url).text == "acme"


@pytest.mark.parametrize("path", ["", "stream"])
def test_cleanup_runs_to_its_end_when_a_drain_cuts_the_request_off(path: str) -> None:
    log: list[str] = []
    begun = threading.Event()

    @io_resource
    async def transaction(request: Request) -> AsyncIterator[str]:
        try:
            yield "transaction"
        except BaseException:
            for _ in range(20):
                await asyncio.sleep(0)
            log.append("rollback")
            raise

    @io_route("/")
    async def handler(transaction: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    @io_route("/stream")
    async def stream(transaction: str) -> AsyncIterator[str]:
        yield "a"
        begun.set()
        await asyncio.Event().wait()

    with serving(Service(handler, stream, transaction), shutdown_timeout=0.5, raise_errors=False) as url:
        host, port = httpx.URL(url).host, httpx.URL(url).port
        client = socket.create_connection((host, port))
        client.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert begun.wait(20)
    client.close()
    assert log == ["rollback"]
