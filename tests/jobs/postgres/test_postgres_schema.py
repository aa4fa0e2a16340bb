"""postgres/schema.py: tables of another version or service are refused, and left as they are."""

from __future__ import annotations

import asyncio

import pytest

from postgres import Postgres
from postgres_stores import opened
from tinysvc.core.errors import ConfigurationError
from tinysvc.jobs.postgres.store import PostgresStore
from tinysvc.jobs.records import NewJob

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("nothing_left")]


async def refused(url: str, service: str = "service") -> str:
    store = PostgresStore(url)
    with pytest.raises(ConfigurationError) as caught:
        await store.open("1-owner", service)
    await store.aclose()
    return str(caught.value)


async def test_servers_that_start_together_make_the_tables_once(postgres: Postgres) -> None:
    url = await postgres.create_schema()
    stores = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(store.open(f"{number}-owner", "service") for number, store in enumerate(stores)))
    job_id = (await stores[0].submit(NewJob(route="/trainings", request=b""))).record.id
    assert [record.id for store in stores for record in (await store.page(None, None, 9, "")).records] == [job_id] * 4
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_another_service_is_refused(postgres: Postgres) -> None:
    url = await postgres.create_schema()
    async with opened(url):
        pass
    text = await refused(url, "other")
    assert "holds the durable jobs of the service 'service', not of 'other'" in text
    assert "?search_path=NAME" in text
    tool = PostgresStore(url)
    await tool.open("2-tool", "")
    await tool.aclose()


async def test_tables_of_a_newer_version_are_refused(postgres: Postgres) -> None:
    url = await postgres.create_schema()
    async with opened(url):
        pass
    schema = url.rpartition("=")[2]
    table = f"{schema}.tinysvc_job_store"
    await asyncio.to_thread(postgres.sql, f"UPDATE {table} SET value = '99' WHERE name = 'version'")
    assert "written by a newer tinysvc: its tables have version 99" in await refused(url)
    assert await asyncio.to_thread(postgres.sql, f"SELECT count(*) FROM {schema}.tinysvc_job_servers") == "0"


async def test_wrong_url_is_refused_at_once(postgres: Postgres) -> None:
    async with asyncio.timeout(5):
        assert "cannot be used for durable jobs" in await refused("postgresql://db:secret@h:port/x")


async def test_database_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.jobs.postgres.store.OPEN_SECONDS", 0.3)
    text = await refused("postgresql://ada:secret@127.0.0.1:1/jobs")
    assert "postgresql://127.0.0.1:1/jobs cannot be reached for durable jobs" in text
    assert "secret" not in text
