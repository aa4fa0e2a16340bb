"""cpu_calls.py: cpu handlers called from code on the event loop, in real workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest

import calls_jobs as jobs
from http_ends import on_loop
from tinysvc import (
    ConfigurationError,
    HTTPError,
    ProcessPoolExecutor,
    Request,
    Response,
    Service,
    cpu,
    cpu_route,
    io_resource,
    io_route,
    job_route,
)
from tinysvc.core.errors import DeadlineExceeded, QueueFull, RemoteError, WorkerDied
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import RunningService, at_work
from tinysvc.testing import serving

pytestmark = pytest.mark.usefixtures("nothing_left")


@job_route("/trainings")
def train() -> None: ...


@asynccontextmanager
async def running(*parts: Any, **options: Any) -> AsyncIterator[RunningService]:
    service = Service(*(parts or [jobs]))
    async with at_work(service, Settings(cpu_workers=2, **options)) as service_at_work:
        yield service_at_work


@on_loop
async def test_call_passes_values_and_fills_in_resources() -> None:
    async with running():
        assert await cpu(jobs.predict, jobs.Features([1, 2])) == {"score": 1.0}
        assert await cpu(jobs.predict, features=jobs.Features([2, 2]), weights=[1, 1]) == {"score": 4}
        pid, name = await cpu(jobs.where, name="x")
        assert pid != os.getpid()
        assert name == "x"
        assert await cpu(jobs.batched, [1, 2, 3]) == [2, 4, 6]
        big = await cpu(jobs.doubled, numpy.arange(200_000.0))
        assert big[-1] == 399_998
        assert big.shape == (200_000,)


@on_loop
async def test_errors_of_a_call_are_raised_in_the_caller() -> None:
    async with running(queue_size=0):
        with pytest.raises(HTTPError) as caught:
            await cpu(jobs.fails, "http")
        assert str(caught.value) == "418 no coffee"
        assert caught.value.headers == [("x-pot", "tea")]
        with pytest.raises(RemoteError, match=r"RuntimeError: why(?s:.*)calls_jobs.py"):
            await cpu(jobs.fails, "why")
        with pytest.raises(WorkerDied, match="7"):
            await cpu(jobs.fails, "exits")
        with pytest.raises(DeadlineExceeded):
            await cpu(jobs.slow)
        with pytest.raises(RemoteError, match="streams streams, and only a request can take a stream"):
            await cpu(jobs.streams)
        with pytest.raises(RemoteError, match="TypeError"):
            await cpu(jobs.predict, 1, 2, 3)


@on_loop
async def test_call_obeys_the_limit_of_the_route_and_the_queue(tmp_path: Path) -> None:
    async with running(queue_size=1):
        first, second = (asyncio.ensure_future(cpu(jobs.waits, str(tmp_path))) for _ in range(2))
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0.005)
        assert (await cpu(jobs.where, "beside"))[1] == "beside"
        with pytest.raises(QueueFull):
            await cpu(jobs.waits, str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 1
        (tmp_path / "end").touch()
        await asyncio.gather(first, second)


@on_loop
async def test_cancelled_call_stops_its_job(tmp_path: Path) -> None:
    async with running():
        call = asyncio.ensure_future(cpu(jobs.waits, str(tmp_path)))
        while not (started := list(tmp_path.iterdir())):
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        while Path("/proc", started[0].name).exists():
            await asyncio.sleep(0.005)
        assert (await cpu(jobs.where, "after"))[1] == "after"


@on_loop
async def test_call_runs_in_an_external_executor() -> None:
    with ThreadPoolExecutor(1) as executor:
        service = Service(jobs.predict, jobs.weights, jobs.fails)
        async with at_work(service, Settings(pools={"default": executor})):
            assert await cpu(jobs.predict, jobs.Features([1, 2])) == {"score": 1.0}
            with pytest.raises(HTTPError, match="no coffee"):
                await cpu(jobs.fails, "http")


@on_loop
async def test_function_that_cannot_be_called_is_refused() -> None:
    async with running(jobs.where):
        with pytest.raises(ConfigurationError, match=r"plain.*has no @cpu_route; give it one, or call it as it is"):
            await cpu(jobs.plain)
        with pytest.raises(ConfigurationError, match=r"fails.*not part of a service that runs on this event loop"):
            await cpu(jobs.fails, "x")
        with pytest.raises(ConfigurationError, match=r"train.*has @job_route; submit it by `await submit\(...\)`"):
            await cpu(train)
    with pytest.raises(ConfigurationError, match=r"where.*not part of a service"):
        await cpu(jobs.where)


@io_route("/asks/{how}")
async def asks(how: str) -> Any:
    return await cpu(jobs.fails, how)


@io_route("/scores")
async def scores() -> list[Any]:
    return await asyncio.gather(*(cpu(jobs.predict, jobs.Features([i, i])) for i in range(8)))


def test_errors_of_a_call_become_the_same_response_as_of_the_route(caplog: pytest.LogCaptureFixture) -> None:
    with (
        serving(Service(asks, scores, jobs), cpu_workers=1, raise_errors=False) as url,
        httpx.Client(base_url=url) as client,
    ):
        assert client.get("/scores").json() == [{"score": 0.75 * i} for i in range(8)]
        for how in ("http", "exits", "why"):
            called, asked = client.get(f"/asks/{how}"), client.get(f"/fails/{how}")
            assert called.status_code == asked.status_code
            assert called.json() | {"request_id": ""} == asked.json() | {"request_id": ""}
    assert sum("RuntimeError: why" in record.getMessage() for record in caplog.records) == 2


@io_resource
async def pool() -> AsyncIterator[ProcessPoolExecutor]:
    async with ProcessPoolExecutor(1) as executor:
        yield executor


@io_route("/calls/{name}")
async def calls(name: str) -> None:
    await cpu(jobs.raises, name)


@io_route("/runs/{name}")
async def runs(name: str, pool: ProcessPoolExecutor) -> None:
    await pool.run(jobs.raise_one, name)


def foreseen(request: Request, error: Exception) -> HTTPError:
    return HTTPError(418, f"{type(error).__name__}: {error.args[0]}")


def failed(request: Request, error: Exception) -> Response:
    return Response(b"failed", 500)


ANSWERS = {  # of the service, and with error handlers
    "plain": (500, "", 418, "Plain: text"),
    "other": (500, "", 418, "TakesOther: 7 text"),
    "lock": (500, "", 418, "HoldsLock: locked"),
    "keywords": (404, "no tea", 404, "no tea"),
    "lock_too": (410, "", 418, "HoldsLockToo: 410"),
    "local": (409, "taken", 409, "taken"),
}


@pytest.mark.parametrize("workers", [0, 1])
def test_exception_gets_the_same_response_by_route_and_by_call(workers: int) -> None:
    kinds = (jobs.Plain, jobs.TakesOther, jobs.HoldsLock, jobs.HoldsLockToo)
    plain = Service(jobs, calls, runs, pool)
    handled = Service(plain, prefix="/handled", error_handlers=dict.fromkeys(kinds, foreseen))
    with serving(Service(plain, handled), cpu_workers=workers, raise_errors=False) as url:
        for name, (status, detail, handled_status, handled_detail) in ANSWERS.items():
            for path in ("raises", "calls", "runs"):
                one, other = httpx.get(f"{url}/{path}/{name}"), httpx.get(f"{url}/handled/{path}/{name}")
                assert (one.status_code, one.json().get("detail", "")) == (status, detail)
                assert (other.status_code, other.json().get("detail", "")) == (handled_status, handled_detail)
                assert one.headers.get("x-what") == ("tea" if name == "keywords" else None)


def test_general_error_handler_gets_the_error_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(jobs, calls, runs, pool, error_handlers={Exception: failed})
    with serving(service, cpu_workers=1, raise_errors=False) as url:
        for path in ("raises", "calls", "runs"):
            for name in ("plain", "local_plain"):
                caplog.clear()
                assert httpx.get(f"{url}/{path}/{name}").text == "failed"
                logged = [record.getMessage() for record in caplog.records if "in raise_one" in record.getMessage()]
                assert len(logged) == 1


@on_loop
async def test_exception_of_a_handler_is_the_original_of_the_error() -> None:
    async with running():
        with pytest.raises(RemoteError, match="7 text") as caught:
            await cpu(jobs.raises, "other")
        assert isinstance(caught.value.original, jobs.TakesOther)
        assert caught.value.original.code == 7
        with pytest.raises(RemoteError) as caught:
            await cpu(jobs.raises, "lock")
        assert vars(caught.value.original) == {}
        with pytest.raises(RemoteError) as caught:
            await cpu(jobs.raises, "local_plain")
        assert caught.value.original is None


def test_decorated_function_stays_a_function() -> None:
    assert jobs.predict(jobs.Features([1, 2]), [1, 1]) == {"score": 3}
    assert cpu_route("/x")(jobs.plain) is jobs.plain
