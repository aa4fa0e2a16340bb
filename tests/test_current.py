"""current.py: which request a line of the log belongs to."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import pytest

from commands import served, tinysvc
from tinysvc import Service, current, io_route
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
def test_a_line_of_the_log_names_route_and_request_wherever_it_is_written(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
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
    return len(current.by_thread)


def test_nothing_is_kept_of_a_connection_that_has_ended() -> None:
    before = len(current.by_task)
    with serving(Service(in_thread)) as url:
        for _ in range(3):
            assert httpx.get(url, timeout=20).json() == 1
    assert len(current.by_task) == before
    assert not current.by_thread
