"""Stores in the PostgreSQL of the tests, and durable jobs in them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tinysvc.jobs.postgres.store import PostgresStore
from tinysvc.jobs.records import Claimed, Failure, NewJob, Record, ResultHead
from tinysvc.jobs.store import Store

NUMBERS = itertools.count(1)
HEAD = ResultHead(status=200, content_type="application/json", headers=[("x-a", "1")], size=4)


@asynccontextmanager
async def opened(url: str, lease: float = 30.0) -> AsyncIterator[PostgresStore]:
    """A store of one more server process."""
    store = PostgresStore(url, lease=lease)
    await store.open(f"{next(NUMBERS)}-owner", "service")
    try:
        yield store
    finally:
        await store.aclose()


def new_job(route: str = "/trainings", **fields: Any) -> NewJob:
    return NewJob(route=route, **{"request": b"request", "body": b"body", **fields})


async def submitted(store: Store, route: str = "/trainings", **fields: Any) -> Record:
    return (await store.submit(new_job(route, **fields))).record


async def claimed(store: Store, route: str = "/trainings") -> Claimed:
    """The next durable job of a route, as soon as one may start."""
    async with asyncio.timeout(10):
        while True:
            for each in await store.claim({route: 1}, 1):
                return each
            await asyncio.sleep(0.01)


async def running(store: Store, **fields: Any) -> tuple[str, int]:
    await submitted(store, **fields)
    record = (await claimed(store)).record
    return record.id, record.attempt


async def record_of(store: Store, job_id: str) -> Record:
    record = await store.get(job_id)
    assert record is not None
    return record


async def failed(store: Store, **fields: Any) -> str:
    job_id, attempt = await running(store, **fields)
    assert await store.fail(job_id, attempt, Failure("error", "ValueError: no", problem={"status": 500}))
    return job_id


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
