"""core/shutdown.py: a hanging cleanup or thread is named, and does not delay the exit."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from commands import served, tinysvc
from system import wait_until
from tinysvc.core import shutdown
from tinysvc.core.shutdown import CLOCK_INTERVAL, Countdown, awake_timeout


def test_suspended_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.2, 160.0, 160.2, 160.4])
    monkeypatch.setattr(shutdown, "monotonic", lambda: next(times))
    countdown = Countdown(CLOCK_INTERVAL + 0.5)
    assert [round(countdown.left(), 3) for _ in range(4)] == [CLOCK_INTERVAL + 0.3, 0.3, 0.1, 0.0]


def test_wait_ends_with_the_countdown_or_the_event() -> None:
    over = threading.Event()
    assert not Countdown(0.01).wait(over)
    over.set()
    assert Countdown(3600).wait(over)


@pytest.mark.asyncio
async def test_timeout_does_not_count_a_standstill() -> None:
    async with awake_timeout(1.0) as limit:
        await asyncio.sleep(0)
        time.sleep(1.5)  # as a process that is stopped
        await asyncio.sleep(0.1)
    assert not limit.expired()
    with pytest.raises(TimeoutError):
        async with awake_timeout(0.01) as limit:
            await asyncio.Event().wait()
    assert limit.expired()


CODE = """
import asyncio, pathlib, threading, time
from tinysvc import Background, Request, cpu_resource, cpu_route, io_resource, io_route

@io_resource
async def first():
    yield 1
    print("the first is closed", flush=True)

def forever():
    while True:
        time.sleep(0.05)

@io_resource
async def awaits(first: int):
    yield 1
    await asyncio.sleep(3600)

@io_resource
async def swallows(first: int):
    yield 1
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@io_resource
def blocks(first: int):
    yield 1
    forever()

@io_resource
def of_a_request(first: int, request: Request):
    yield 1
    pathlib.Path("begun").touch()
    forever()

@cpu_resource
def in_a_worker():
    yield 1
    forever()

@cpu_resource(shared=True)
def in_the_forkserver():
    yield 1
    forever()

@io_route("/awaits")
async def with_awaits(awaits: int) -> int:
    return awaits

@io_route("/swallows")
async def with_swallows(swallows: int) -> int:
    return swallows

@io_route("/blocks")
async def with_blocks(blocks: int) -> int:
    return blocks

@cpu_route("/in_a_worker")
def with_worker(in_a_worker: int) -> int:
    return in_a_worker

@cpu_route("/in_the_forkserver")
def with_forkserver(in_the_forkserver: int) -> int:
    return in_the_forkserver

@io_route("/thread")
def thread() -> None:
    pathlib.Path("begun").touch()
    forever()

@io_route("/to_thread")
async def to_thread() -> None:
    pathlib.Path("begun").touch()
    await asyncio.to_thread(forever)

@io_route("/of_a_request")
async def with_request(of_a_request: int) -> None: ...

@io_route("/own_thread")
async def own_thread() -> None:
    threading.Thread(target=forever, name="the author's").start()

@io_route("/in_background")
async def in_background(background: Background) -> None:
    background.add(forever)
"""


RESOURCES = "first, awaits, swallows, blocks, of_a_request, in_a_worker, in_the_forkserver"


def write_service(folder: Path, route: str) -> None:
    (folder / "parts.py").write_text(CODE)
    (folder / "service.py").write_text(
        f"from parts import {route}, {RESOURCES}\nfrom tinysvc import Service\n"
        f"service = Service({route}, {RESOURCES})\n"
    )


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "beside others"])
@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("with_awaits", "the resource awaits was not closed within shutdown_timeout; its cleanup was cancelled"),
        ("with_swallows", "the resource swallows was not closed within shutdown_timeout"),
        ("with_blocks", "the resource blocks was not closed within shutdown_timeout"),
        ("with_worker", "in_a_worker"),
        ("with_forkserver", ""),
        ("own_thread", "the author's"),
        ("in_background", "1 background tasks were cancelled because the server ends (forever)"),
    ],
)
def test_hanging_cleanup_does_not_delay_the_exit(
    route: str, words: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    write_service(tmp_path, route)
    with served(*tinysvc("service.py:service", "--shutdown-timeout", "1.5", *options), cwd=tmp_path) as server:
        path = route.replace("with_worker", "in_a_worker").replace("with_forkserver", "in_the_forkserver")
        assert httpx.get(f"{server.url}/{path.removeprefix('with_')}", timeout=30).status_code in (200, 204)
        begin = time.monotonic()
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert time.monotonic() - begin < 6
        assert server.process.stderr is not None
        assert words in server.process.stderr.read()


@pytest.mark.parametrize("route", ["thread", "to_thread", "with_request"])
def test_request_that_cannot_be_stopped_does_not_delay_the_exit(route: str, tmp_path: Path) -> None:
    write_service(tmp_path, route)
    with (
        served(*tinysvc("service.py:service", "--shutdown-timeout", "1"), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        path = "of_a_request" if route == "with_request" else route
        answer = threads.submit(httpx.get, f"{server.url}/{path}", timeout=30)
        wait_until((tmp_path / "begun").exists, "the handler or the cleanup runs")
        begin = time.monotonic()
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert time.monotonic() - begin < 6
        assert isinstance(answer.exception(), httpx.TransportError)
        assert server.process.stderr is not None
        assert "did not end" in server.process.stderr.read()
