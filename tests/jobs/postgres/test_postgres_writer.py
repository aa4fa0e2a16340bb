"""postgres/writer.py: what waits is committed together, and one bad change does not fail the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from postgres import Postgres
from postgres_stores import new_job, opened, submitted
from tinysvc.core.job_errors import StoreError
from tinysvc.jobs.postgres.store import PostgresStore
from tinysvc.jobs.postgres.writer import BYTES_TOGETHER, TOGETHER

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("nothing_left")]


@pytest_asyncio.fixture
async def store(postgres: Postgres) -> AsyncIterator[PostgresStore]:
    async with opened(await postgres.create_schema()) as store:
        yield store


async def commits(store: PostgresStore, postgres: Postgres) -> int:
    """Transactions that have written durable jobs: each has its own xmin."""
    table = f"{store.url.rpartition('=')[2]}.tinysvc_jobs"
    return int(await asyncio.to_thread(postgres.sql, f"SELECT count(DISTINCT xmin::text) FROM {table}"))


async def test_what_waits_is_committed_together(store: PostgresStore, postgres: Postgres) -> None:
    await asyncio.gather(*(submitted(store) for _ in range(3 * TOGETHER)))
    assert 3 <= await commits(store, postgres) <= 5


async def test_large_contents_go_in_transactions_of_their_own(store: PostgresStore, postgres: Postgres) -> None:
    body = bytes(BYTES_TOGETHER // 2 + 1)
    await asyncio.gather(*(submitted(store, body=body) for _ in range(3)))
    assert await commits(store, postgres) == 3


async def test_change_that_the_database_refuses_fails_alone(store: PostgresStore) -> None:
    results = await asyncio.gather(
        *(store.submit(new_job(route)) for route in ("/a", "/\x00", "/b")), return_exceptions=True
    )
    assert [isinstance(each, StoreError) for each in results] == [False, True, False]
    assert (await store.page(None, None, 9, "")).counts == {"queued": 2}


async def test_close_commits_the_changes_that_wait_and_refuses_more(postgres: Postgres) -> None:
    async with opened(await postgres.create_schema()) as store:
        waiting = [asyncio.ensure_future(store.submit(new_job())) for _ in range(9)]
        await asyncio.sleep(0)
    assert [each.is_new for each in await asyncio.gather(*waiting)] == [True] * 9
    with pytest.raises(StoreError, match="is closed"):
        await store.submit(new_job())
