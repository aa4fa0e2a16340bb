"""in_process.py: cpu_workers=0, all kinds of cpu routes in a thread of the server."""

from __future__ import annotations

import asyncio
import threading
import time
import unittest.mock
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest

import jobs
from pools import submit
from system import until
from tinysvc import Batch, HTTPError, Service, call, cpu_resource, cpu_route, io_route
from tinysvc.core.errors import JobAbandoned, PoolClosed, WorkerStartError
from tinysvc.pool.in_process import InProcessPool, ThreadExecutor
from tinysvc.pool.program import JobFunction, Reply
from tinysvc.testing import serving

pytestmark = pytest.mark.usefixtures("nothing_left")

closed: list[int] = []
streamed: list[int] = []
go_on = threading.Event()


@cpu_resource
def opened() -> Iterator[int]:
    yield threading.get_ident()
    closed.append(threading.get_ident())


@cpu_resource(shared=True)
def shared() -> Iterator[str]:
    yield "shared"


@cpu_route("/thread")
def thread(opened: int, shared: str) -> list[object]:
    return [opened == threading.get_ident(), threading.current_thread() is not threading.main_thread(), shared]


@cpu_route("/double", batch=Batch(8))
def double(number: list[int]) -> list[int]:
    return [2 * each for each in number]


@cpu_route("/length", methods=["POST"])
def length(body: bytes) -> int:
    return len(body)


@cpu_route("/echo", methods=["POST"])
def echo(body: bytes) -> bytes:
    return bytes(body)


@cpu_route("/endless")
def endless() -> Iterator[bytes]:
    try:
        for number in range(10**9):
            streamed.append(number)
            yield b"x" * 100_000
    finally:
        closed.append(-1)


@cpu_route("/stream")
def stream() -> Iterator[bytes]:
    yield b"a"
    yield b"b"


@cpu_route("/wrong")
def wrong() -> None:
    raise ValueError("wrong")


@cpu_route("/refused")
def refused() -> None:
    raise HTTPError(418, "teapot")


@cpu_route("/slow", timeout=0.05)
def slow() -> None:
    go_on.wait(20)


@io_route("/call")
async def longer(number: int) -> int:
    return (await call(length, b"x" * number)) + 1


HANDLERS = (opened, shared, thread, double, length, echo, endless, stream, wrong, refused, slow, longer)


@pytest.fixture
def service() -> Service:
    closed.clear()
    go_on.clear()
    return Service(*HANDLERS)


def test_all_kinds_of_handlers_run_in_one_thread(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(service, cpu_workers=0) as url, httpx.Client(base_url=url) as client:
        assert client.get("/thread").json() == [True, True, "shared"]
        assert client.get("/double?number=4").json() == 8
        assert client.get("/stream").content == b"ab"
        assert client.get("/refused").status_code == 418
        assert client.get("/call?number=5").json() == 6
        assert client.get("/readyz").json()["pools"]["default"]["workers"] == 1
        for size in (10, 3_000_000):
            assert client.post("/length", content=b"x" * size).json() == size
            assert client.post("/echo", content=b"x" * size).content == b"x" * size
        assert client.get("/double?number=no").status_code == 422
        monkeypatch.setattr(length, "__code__", (lambda body: -1).__code__)
        assert client.post("/length", content=b"x").json() == -1
    assert len(closed) == 1
    assert "run in a thread of the server" in caplog.text


def test_exception_of_a_handler_is_raised_in_the_test(service: Service) -> None:
    with pytest.raises(Exception, match="ValueError: wrong"), serving(service, cpu_workers=0) as url:
        assert httpx.get(f"{url}/wrong").status_code == 500


def test_deadline_gets_504_while_the_job_runs_on(service: Service) -> None:
    with serving(service, cpu_workers=0) as url:
        assert httpx.get(f"{url}/slow").status_code == 504
        go_on.set()
        assert httpx.get(f"{url}/thread").status_code == 200


def test_stream_has_back_pressure_and_ends_at_disconnect(service: Service) -> None:
    with serving(service, cpu_workers=0) as url:
        with httpx.stream("GET", f"{url}/endless") as answer:
            next(answer.iter_raw())
        end = time.monotonic() + 20
        while -1 not in closed:
            assert time.monotonic() < end
            time.sleep(0.005)
        assert httpx.get(f"{url}/thread").status_code == 200


def broken() -> None:
    raise OSError("no model")


def test_failing_resource_is_reported_at_start_up() -> None:
    service = Service(*HANDLERS).override(opened=broken)
    with pytest.raises(Exception, match="no model"), serving(service, cpu_workers=0):
        pass


def test_local_handlers_and_resources_work() -> None:
    calls: list[int] = []

    @cpu_route("/local")
    def local(number: int, opened: Any) -> int:
        calls.append(number)
        return int(opened.score(number))

    fake = unittest.mock.Mock()
    fake.score.return_value = 7
    service = Service(local, opened).override(opened=fake)
    with serving(service, cpu_workers=0) as url:
        assert httpx.get(f"{url}/local?number=3").json() == 7
    assert calls == [3]
    fake.score.assert_called_once_with(3)


@pytest.mark.asyncio
@pytest.mark.parametrize("closes", [True, False])
async def test_stream_without_a_reader_leaves_the_thread(closes: bool) -> None:
    pool = InProcessPool(jobs.flooding_program)
    await pool.start()
    job = submit(pool, "flood")
    reply = await job.future
    if closes:
        await reply.body.aclose()  # more pieces are on their way
    else:
        pool.abandon(job, even_running=True)
        with pytest.raises(JobAbandoned):
            [piece async for piece in reply.body]
    assert (await submit(pool, "next", timeout=20).future).meta == "next"
    await pool.aclose()


@pytest.mark.asyncio
async def test_job_that_is_abandoned_before_the_thread_takes_it_leaves_its_slot() -> None:
    pool = InProcessPool(jobs.upper_program)
    await pool.start()
    release = threading.Event()
    pool._thread.submit(release.wait)  # the thread has not taken the next job yet
    job = submit(pool, None, b"a")
    assert job.slot is not None
    pool.abandon(job, even_running=True)
    release.set()
    with pytest.raises(JobAbandoned):
        await job.future
    assert (await submit(pool, None, b"b", timeout=20).future).body == b"B"
    await pool.aclose()


@contextmanager
def noting_program(version: str, notes: list[str], wait: threading.Event | None = None) -> Iterator[JobFunction]:
    notes.append(f"open {version}")
    if wait is not None:
        assert wait.wait(20)
    if version == "bad":
        raise RuntimeError("no such version")
    yield lambda meta, body: Reply(version, body)
    notes.append(f"close {version}")


@pytest.mark.asyncio
@pytest.mark.parametrize("drain", [False, True])
async def test_swap_opens_the_new_program_between_two_jobs(drain: bool) -> None:
    notes: list[str] = []
    pool = InProcessPool(partial(noting_program, "1", notes), label="m@1")
    await pool.start()
    swap = asyncio.create_task(pool.swap(partial(noting_program, "2", notes), label="m@2", drain=drain))
    await swap
    assert pool.generation == "m@2"
    assert (await submit(pool, None).future).meta == "2"
    assert notes == (["open 1", "close 1", "open 2"] if drain else ["open 1", "open 2", "close 1"])
    with pytest.raises(WorkerStartError, match="no such version"):
        await pool.swap(partial(noting_program, "bad", notes), label="m@3", drain=drain)
    assert pool.generation == "m@2"
    assert (await submit(pool, None).future).meta == "2"
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await pool.swap(partial(noting_program, "3", notes))
    assert notes.count("open 2") == notes.count("close 2") == 1 + drain


@pytest.mark.asyncio
async def test_cancelled_swap_keeps_the_old_program() -> None:
    notes: list[str] = []
    go = threading.Event()
    pool = InProcessPool(partial(noting_program, "1", notes), label="m@1")
    await pool.start()
    swap = asyncio.create_task(pool.swap(partial(noting_program, "2", notes, go), label="m@2"))
    await until(lambda: "open 2" in notes)
    swap.cancel()
    with pytest.raises(asyncio.CancelledError):
        await swap
    go.set()
    assert (await submit(pool, None).future).meta == "1"
    assert pool.generation == "m@1"
    await pool.aclose()
    assert notes == ["open 1", "open 2", "close 2", "close 1"]


def test_thread_executor_after_shutdown_refuses_calls() -> None:
    thread = ThreadExecutor("test")
    assert thread.submit(abs, -7).result() == 7
    thread.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        thread.submit(abs, -7)
