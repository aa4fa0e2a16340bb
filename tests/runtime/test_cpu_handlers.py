"""cpu_handlers.py: the server's side of a cpu route, with a real pool and a fake one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import batching_jobs
from fake_pool import FakePool, until
from system import wait_until
from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    PoolError,
    ProtocolError,
    QueueFull,
    WorkerDied,
)
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request
from tinysvc.core.responses import Handler, Response
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool.arena import BIG, Arena, Arenas
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.state import Job
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.cpu_handlers import KNOWN_TIMES, body_for_worker, cpu_handler, server_timing
from tinysvc.runtime.cpu_messages import ResponseHead
from tinysvc.runtime.endpoint_parts import Endpoint
from tinysvc.service.routes import Route

ENDPOINTS = [
    Endpoint(batching_jobs.whoami, (), {}, path="/who/{name}"),
    Endpoint(batching_jobs.size_of, (), {}),
    Endpoint(batching_jobs.copied, (), {}),
    Endpoint(batching_jobs.as_json, (), {}),
    Endpoint(batching_jobs.echo, (), {}),
    Endpoint(batching_jobs.fails, (), {}),
    Endpoint(batching_jobs.refuses, (), {}),
    Endpoint(batching_jobs.wait, (), {}),
    Endpoint(batching_jobs.crash, (), {}),
    Endpoint(batching_jobs.pids, (), {"shared_pid": batching_jobs.shared_pid}, frozenset({"shared_pid"})),
    Endpoint(batching_jobs.ticks, ("n",), {}),
]
BOTH = re.compile(r"queue;dur=\d+\.\d, run;dur=\d+\.\d")


def handler(pool: Any, function: Callable[..., Any] = batching_jobs.whoami, **options: Any) -> Handler:
    numbers = [endpoint.function for endpoint in ENDPOINTS]
    options = {"timeout": 0, **options}
    route = Route(path="/x", methods=("GET", "POST"), function=function, kind="cpu", **options)
    return cpu_handler(pool, numbers.index(function), route, 30.0, None)


def pool_of(workers: int = 1, **options: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, program=CpuProgram(ENDPOINTS), **options)


async def pieces(total: int) -> AsyncIterator[bytes]:
    for start in range(0, total, 65536):
        yield b"x" * min(65536, total - start - 3 if start + 65536 >= total else 65536)
    yield b"end"


def timing(of: Response | PoolError) -> str:
    return dict(of.headers)["server-timing"]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_request_travels_to_a_worker_and_back() -> None:
    async with pool_of() as pool:
        given = Headers(((b"x-request-id", b"abc"),))
        response = await handler(pool)(Request("POST", "/who/me", headers=given))
        assert response.content == b'["abc","abc","POST /who/{name}"]'
        assert BOTH.fullmatch(timing(response))
        request = Request("GET", "/who/me")
        response = await handler(pool)(request)
        assert response.content == f'["{request.id}","{request.id}","GET /who/{{name}}"]'.encode()

        response = await handler(pool, batching_jobs.refuses)(Request("GET", "/x"))
        assert (response.status, response.content_type) == (418, "application/problem+json")
        assert BOTH.fullmatch(timing(response))
        with pytest.raises(PoolError, match="no such value") as raised:
            await handler(pool, batching_jobs.fails)(Request("GET", "/x"))
        assert BOTH.fullmatch(timing(raised.value))
        with pytest.raises(WorkerDied) as raised:
            await handler(pool, batching_jobs.crash)(Request("GET", "/x"))
        assert BOTH.fullmatch(timing(raised.value))


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_bodies_of_every_size() -> None:
    async with pool_of() as pool:

        async def ask(function: Callable[..., Any], body: Any) -> Any:
            return (await handler(pool, function)(Request("POST", "/x", body=body))).content

        size = 4 * BIG + 5
        assert await ask(batching_jobs.size_of, pieces(size)) == b'{"size":%d,"type":"memoryview","ends":"end"}' % size
        assert await ask(batching_jobs.copied, pieces(size)) == b'{"size":%d,"type":"bytes"}' % size
        assert await ask(batching_jobs.size_of, pieces(100)) == b'{"size":100,"type":"memoryview","ends":"end"}'
        assert await ask(batching_jobs.as_json, b'{"x": 7}') == b"7"
        big_json = b'{"x": 8' + b" " * BIG + b"}"

        async def in_two() -> AsyncIterator[bytes]:
            yield big_json[:100]
            yield big_json[100:]

        assert await ask(batching_jobs.as_json, in_two()) == b"8"
        assert bytes(await ask(batching_jobs.echo, pieces(size))) == b"x" * (size - 3) + b"end"
        assert await ask(batching_jobs.echo, b"small") == b"small"


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_shared_resource_is_opened_before_the_fork() -> None:
    async with pool_of(2) as pool:
        first = await handler(pool, batching_jobs.pids)(Request("GET", "/x"))
        opened_in, worker = first.content.strip(b"[]").split(b",")
        assert opened_in != worker


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_generator_of_events_is_an_event_stream() -> None:
    async with pool_of() as pool:
        response = await handler(pool, batching_jobs.ticks)(Request("GET", "/x", path_params={"n": "2"}))
        assert response.content_type == "text/event-stream; charset=utf-8"
        assert dict(response.headers)["cache-control"] == "no-cache"
        assert b"".join([piece async for piece in response.content]) == (
            b'id: 0\ndata: {"n":0}\n\nid: 1\ndata: {"n":1}\n\n'
        )


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_server_timing_of_a_job_that_never_ran(tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    query = f"started={started}&go={go}"
    async with pool_of(queue_size=1) as pool:
        running = asyncio.ensure_future(handler(pool, batching_jobs.wait)(Request("GET", "/x", query)))
        await asyncio.to_thread(wait_until, started.exists, "it runs")
        waiting = asyncio.ensure_future(handler(pool)(Request("GET", "/x")))
        await until(lambda: pool.waiting, "the second waits")
        with pytest.raises(QueueFull) as full:
            await handler(pool)(Request("GET", "/x"))
        assert timing(full.value) == "queue;dur=0.0"
        assert dict(full.value.headers)["retry-after"] == "1"
        waiting.cancel()
        await until(lambda: not pool.waiting, "the second has left")
        with pytest.raises(DeadlineInQueue) as late:
            await handler(pool, timeout=0.05)(Request("GET", "/x"))
        assert timing(late.value).endswith(", run;dur=0.0")
        go.touch()
        await running
        with pytest.raises(DeadlineExceeded) as ran:
            await handler(pool, batching_jobs.wait, timeout=0.05)(Request("GET", "/x", f"started={started}&go={go}no"))
        assert not timing(ran.value).endswith(", run;dur=0.0")


# With a pool by hand


@pytest.mark.parametrize(
    ("method", "on_disconnect", "even_running"),
    [("GET", None, True), ("POST", None, False), ("GET", "finish", False), ("POST", "cancel", True)],
)
@pytest.mark.asyncio
async def test_disconnect_abandons_the_job(method: str, on_disconnect: Any, even_running: bool) -> None:
    pool = FakePool()
    request = Request(method, "/x")
    answer = asyncio.ensure_future(handler(pool, on_disconnect=on_disconnect)(request))
    await until(lambda: pool.jobs, "the job is in the pool")
    pool.start(pool.jobs[0])
    assert request.on_disconnect is not None
    request.on_disconnect()
    assert pool.abandoned == [(pool.jobs[0], even_running)]
    if not even_running:
        pool.end(pool.jobs[0], JobReply(ResponseHead(200, None, []), b"done"))
        assert (await answer).content == b"done"
    else:
        with pytest.raises(JobAbandoned):
            await answer


@pytest.mark.asyncio
async def test_cancelled_handler_abandons_its_job() -> None:
    pool = FakePool()
    answer = asyncio.ensure_future(handler(pool)(Request("POST", "/x")))
    await until(lambda: pool.jobs, "the job is in the pool")
    answer.cancel()
    await asyncio.wait([answer])
    assert answer.cancelled()
    assert pool.abandoned == [(pool.jobs[0], True)]


@pytest.mark.asyncio
async def test_equal_jobs_have_equal_keys() -> None:
    pool = FakePool()
    requests = [Request("POST", "/x", "a=1", body=body) for body in (b"1", b"1", b"2")]
    answers = [asyncio.ensure_future(handler(pool)(request)) for request in requests]
    await until(lambda: len(pool.jobs) == 3, "the jobs are in the pool")
    first, second, third = [job.key for job in pool.jobs]
    assert first == second != third
    for job in pool.jobs:
        pool.end(job, JobReply(ResponseHead(200, None, []), b""))
    await asyncio.gather(*answers)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_arena_of_a_refused_job_is_closed() -> None:
    pool = FakePool()
    pool.refusal = QueueFull("1 jobs wait already; try again later")
    with pytest.raises(QueueFull):
        await handler(pool)(Request("POST", "/x", body=pieces(BIG)))


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_disconnect_during_an_upload_closes_the_arena() -> None:
    async def cut_short() -> AsyncIterator[bytes]:
        yield b"x" * BIG
        raise ProtocolError(400, "The request body was cut short.")

    with pytest.raises(ProtocolError):
        await body_for_worker(Request("POST", "/x", body=cut_short()), Arenas())


@pytest.mark.parametrize(("size", "kind"), [(0, bytes), (BIG - 1, bytes), (BIG, Arena), (3 * BIG, Arena)])
@pytest.mark.asyncio
async def test_big_body_is_received_in_an_arena(size: int, kind: type) -> None:
    async def body() -> AsyncIterator[bytes]:
        for start in range(0, size, 60_000):
            yield b"x" * min(60_000, size - start)

    got = await body_for_worker(Request("POST", "/x", body=body()), Arenas())
    assert type(got) is kind
    assert (got.size if isinstance(got, Arena) else len(got)) == size


@pytest.mark.parametrize(
    ("waited", "ran", "expected"),
    [
        (0.0, 0.0, "queue;dur=0.0, run;dur=0.0"),
        (0.00004, 0.00006, "queue;dur=0.0, run;dur=0.1"),
        (0.0123, 1.5, "queue;dur=12.3, run;dur=1500.0"),
    ],
)
def test_server_timing_has_tenths_of_milliseconds(waited: float, ran: float, expected: str) -> None:
    job = Job(None)
    job.admitted, job.started, job.settled = 100.0, 100.0 + waited, 100.0 + waited + ran
    assert server_timing(job) == expected


def test_server_timing_is_right_for_more_durations_than_are_kept() -> None:
    job = Job(None)
    for tenths in range(2 * KNOWN_TIMES):
        job.started, job.settled = 100.0, 100.0 + tenths / 1e4
        assert server_timing(job).endswith(f"run;dur={tenths / 10:.1f}")


def test_server_timing_of_a_refused_job() -> None:
    assert server_timing(None) == "queue;dur=0.0"
