"""batching.py with a real pool, and with other executors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import batching_jobs
from system import wait_until
from tinysvc.core.errors import (
    DeadlineExceeded,
    RemoteError,
    WorkerDied,
)
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request
from tinysvc.core.responses import Handler, Response
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool.arena import BIG
from tinysvc.pool.external import ExternalPool
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.cpu_handlers import cpu_handler
from tinysvc.runtime.endpoint_parts import Endpoint
from tinysvc.service.routes import Batch, Route

NEVER = 3600.0

ENDPOINTS: list[Callable[..., Any]] = [
    batching_jobs.score,
    batching_jobs.picky,
    batching_jobs.too_few,
    batching_jobs.waits,
    batching_jobs.dies,
    batching_jobs.sizes,
]


def program(batch: Batch) -> CpuProgram:
    return CpuProgram(
        [
            Endpoint(
                f, (), {"factor": batching_jobs.factor} if f is batching_jobs.score else {}, batch=batch, path="/x"
            )
            for f in ENDPOINTS
        ]
    )


def handler(pool: ProcessPoolExecutor, function: Callable[..., Any], batch: Batch, timeout: float = 0) -> Handler:
    route = Route(path="/x", methods=("POST",), function=function, kind="cpu", batch=batch, timeout=timeout)
    return cpu_handler(pool, ENDPOINTS.index(function), route, 30.0, None)


def features(x: object) -> Request:
    return Request("POST", "/x", "", Headers(((b"x-add", b"1"),)), b'{"x": %s}' % str(x).encode())


async def answers(handle: Handler, *requests: Request) -> list[Any]:
    """For each its response, or its error."""
    return list(await asyncio.gather(*map(handle, requests), return_exceptions=True))


def brief(answer: Any) -> Any:
    return (answer.status, bytes(answer.content)) if isinstance(answer, Response) else type(answer)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_batches_in_workers() -> None:
    batch = Batch(size=4, wait=NEVER)
    async with ProcessPoolExecutor(1, program=program(batch)) as pool:
        got = await answers(handler(pool, batching_jobs.score, batch), *map(features, [1, 2, '"two"', 4]))
        assert [brief(each) for each in got[:2] + got[3:]] == [(200, b'{"y":%d,"of":3}' % y) for y in (11, 21, 41)]
        assert got[2].status == 422
        assert all(timing(each) for each in got)

        got = await answers(handler(pool, batching_jobs.picky, batch), *map(features, [-1, 5, -2, 6]))
        assert [brief(each) for each in got] == [RemoteError, (200, b"5"), RemoteError, (200, b"6")]
        assert "a negative one" in str(got[0])
        got = await answers(handler(pool, batching_jobs.picky, batch), *map(features, [0, 1, 2, 9]))
        assert [brief(each) for each in (got[0], got[2], got[3])] == [RemoteError, RemoteError, (200, b"9")]
        assert (got[1].status, "ZeroDivisionError: zero" in str(got[0])) == (409, True)

        got = await answers(handler(pool, batching_jobs.too_few, batch), *map(features, [1, 2, 3, 4]))
        assert ["must return a list of as many results, but returned 1 of them" in str(each) for each in got] == [
            True
        ] * 4

        bodies = [b"a" * 10, b"b" * BIG, b"", b"d" * 20]
        got = await answers(handler(pool, batching_jobs.sizes, batch), *(Request("POST", "/x", body=b) for b in bodies))
        assert [bytes(each.content) for each in got] == bodies


def timing(response: Response) -> bool:
    return [name for name, _ in response.headers] == ["server-timing"]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_dead_worker_fails_only_its_batch(tmp_path: Path) -> None:
    batch = Batch(size=2, wait=NEVER)
    calls = tmp_path / "calls"
    async with ProcessPoolExecutor(1, program=program(batch)) as pool:
        request = Request("POST", "/x", body=str(calls).encode())
        died = answers(handler(pool, batching_jobs.dies, batch), request, request)
        good = answers(handler(pool, batching_jobs.score, batch), features(1), features(2))
        got = await asyncio.gather(died, good)
        assert [brief(each) for each in got[0]] == [WorkerDied, WorkerDied]
        assert [each.status for each in got[1]] == [200, 200]
    assert calls.read_text() == "called "


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_batch_past_all_deadlines_is_killed(tmp_path: Path) -> None:
    batch = Batch(size=2, wait=NEVER)
    started, go = tmp_path / "started", tmp_path / "go"
    async with ProcessPoolExecutor(1, program=program(batch)) as pool:
        request = Request("POST", "/x", body=f"{started} {go}".encode())
        got = await answers(handler(pool, batching_jobs.waits, batch, timeout=0.2), request, request)
        assert [brief(each) for each in got] == [DeadlineExceeded, DeadlineExceeded]
        got = await answers(handler(pool, batching_jobs.score, batch), features(1), features(2))
        assert [each.status for each in got] == [200, 200]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_requests_gather_while_the_worker_is_busy(tmp_path: Path) -> None:
    batch = Batch(size=8, wait=0)
    started, go = tmp_path / "started", tmp_path / "go"
    async with ProcessPoolExecutor(1, program=program(batch)) as pool:
        handle = handler(pool, batching_jobs.waits, batch)
        request = Request("POST", "/x", body=f"{started} {go}".encode())
        first = asyncio.ensure_future(handle(request))
        await asyncio.to_thread(wait_until, started.exists, "the first batch runs")
        others = [asyncio.ensure_future(handle(request)) for _ in range(5)]
        await asyncio.sleep(0)
        assert pool.waiting == 0
        go.touch()
        await asyncio.gather(first, *others)
        assert np.unique([each.result().headers[0][0] for each in others]).tolist() == ["server-timing"]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.asyncio
async def test_batches_in_any_executor() -> None:
    batch = Batch(size=2, wait=NEVER)
    with ThreadPoolExecutor(1) as executor:
        pool = ExternalPool(executor, program(batch))
        await pool.start()
        route = Route(path="/x", methods=("POST",), function=batching_jobs.score, kind="cpu", batch=batch)
        got = await answers(cpu_handler(pool, 0, route, 30.0, None), features(1), features('"a"'))
        assert [each.status for each in got] == [200, 422]
        await pool.aclose()
