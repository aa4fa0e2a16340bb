"""runner.py over the real stores: two servers share the durable jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import runner_jobs
from http_ends import logged, on_loop
from postgres import MISSING, Postgres, running_postgres
from system import exists, is_alive, until
from tinysvc import Request, Service
from tinysvc.core.settings import Settings
from tinysvc.jobs.opening import new_owner, store_of
from tinysvc.jobs.service_jobs import ServiceJobs
from tinysvc.runtime.running_service import RunningService, at_work


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Postgres | None:
    """PostgreSQL; None for SQLite."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres")


async def address(database: Postgres | None, folder: Path) -> str:
    return str(folder / "jobs.db") if database is None else await database.create_schema()


@asynccontextmanager
async def servers(jobs: str, count: int = 2, **options: Any) -> AsyncIterator[list[RunningService]]:
    def make(service: Service, settings: Settings) -> ServiceJobs:
        return ServiceJobs(service, settings, store_of(settings.jobs), new_owner())

    async with AsyncExitStack() as stack:
        settings = Settings(cpu_workers=1, jobs=jobs, **options)
        yield [
            await stack.enter_async_context(at_work(runner_jobs.ONLY_JOBS, settings, None, make)) for _ in range(count)
        ]


async def asked(server: RunningService, method: str, path: str, **query: object) -> Any:
    """The JSON of a response."""
    response = await server(Request(method, path, urlencode(query)))
    assert response.status < 300, response.content
    return json.loads(bytes(response.content))


async def ended(server: RunningService, path: str) -> Any:
    async with asyncio.timeout(20):
        while (document := await asked(server, "GET", path))["state"] not in ("succeeded", "failed", "cancelled"):
            await asyncio.sleep(0.01)
    return document


@on_loop
async def test_cancel_at_any_server_returns_after_the_death(database: Postgres | None, tmp_path: Path) -> None:
    async with servers(await address(database, tmp_path)) as two:
        for number, server in enumerate(two):
            started = tmp_path / str(number)
            path = (await asked(two[0], "POST", "/stuck", started=started))["links"]["self"]
            await exists(started)
            worker = int(started.read_text().split()[0])
            document = await asked(server, "DELETE", path)
            assert not is_alive(worker)
            assert document["state"] == "cancelled"


@on_loop
async def test_each_job_runs_once(database: Postgres | None, tmp_path: Path) -> None:
    async with servers(await address(database, tmp_path)) as two:
        posts = [asked(two[n % 2], "POST", "/sums", a=n, b=1) for n in range(100)]
        paths = [document["links"]["self"] for document in await asyncio.gather(*posts)]
        for number, path in enumerate(paths):
            document = await ended(two[0], path)
            assert (document["state"], document["used"]) == ("succeeded", 1)
            assert await asked(two[1], "GET", f"{path}/result") == number + 1


@on_loop
async def test_job_of_a_server_that_drains_goes_on_at_another(database: Postgres | None, tmp_path: Path) -> None:
    async with servers(await address(database, tmp_path), count=1) as (first,):
        path = (await asked(first, "POST", "/epochs", epochs=3, folder=tmp_path))["links"]["self"]
        await exists(tmp_path / "started")
        async with servers(first.settings.jobs, count=1) as (second,):
            await first.drain(0.2)
            (tmp_path / "go").touch()
            document = await ended(second, path)
            assert await asked(second, "GET", f"{path}/result") == [1, 1, document["attempt"]]
            assert document["used"] == 1


@on_loop
async def test_job_outlives_a_restart_of_the_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if MISSING:
        pytest.skip(MISSING)
    with running_postgres() as database:
        async with servers(await database.create_database(), count=1) as (server,):
            path = (await asked(server, "POST", "/waits", started=tmp_path / "started", go=tmp_path / "go"))["links"]
            await exists(tmp_path / "started")
            await asyncio.to_thread(database.stop)
            (tmp_path / "go").touch()
            await until(lambda: bool(server.durable and server.durable.problem))
            await asyncio.to_thread(database.start)
            document = await ended_after_restart(server, path["self"])
            assert (document["state"], document["used"], document["attempt"]) == ("succeeded", 1, 1)
            await until(lambda: not (server.durable and server.durable.problem))
    logged(caplog)


async def ended_after_restart(server: RunningService, path: str) -> Any:
    async with asyncio.timeout(20):
        while (await server(Request("GET", path))).status != 200:
            await asyncio.sleep(0.05)
    return await ended(server, path)
