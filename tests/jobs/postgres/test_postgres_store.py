"""postgres/store.py: keeps the contract of store.py in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from postgres import Postgres
from postgres_servers import Servers
from postgres_stores import opened
from store_contract import StoreContract
from store_edges import StoreEdges
from tinysvc.jobs.store import Store


class TestPostgresStore(StoreContract):
    @pytest_asyncio.fixture
    async def harness(self, postgres: Postgres) -> AsyncIterator[Servers]:
        servers = Servers(postgres, await postgres.create_schema())
        yield servers
        await servers.restart()


class TestEdges(StoreEdges):
    @pytest_asyncio.fixture
    async def store(self, postgres: Postgres) -> AsyncIterator[Store]:
        async with opened(await postgres.create_schema()) as store:
            yield store
