"""Several server processes with one PostgreSQL, as the contract of stores sees them."""

from __future__ import annotations

import asyncio

from postgres import Postgres
from tinysvc.jobs.postgres.changes import Changes
from tinysvc.jobs.postgres.connection import Link
from tinysvc.jobs.postgres.operations import Lapse
from tinysvc.jobs.postgres.schema import prepare
from tinysvc.jobs.postgres.store import PostgresStore
from tinysvc.jobs.postgres.writer import Writer
from tinysvc.jobs.store import Store


class Servers:
    """Several server processes with one database."""

    def __init__(self, postgres: Postgres, url: str) -> None:
        self._postgres = postgres
        self._url = url
        self._stores: dict[str, PostgresStore] = {}

    async def server(self, owner: str) -> Store:
        if owner not in self._stores:
            self._stores[owner] = PostgresStore(self._url)
            await self._stores[owner].open(owner, "service")
        return self._stores[owner]

    async def kill(self, owner: str) -> None:
        """Let its lease end in the database, and another server process notice it."""
        schema = self._url.rpartition("=")[2]
        statement = f"UPDATE {schema}.tinysvc_job_servers SET lease_end = '-infinity' WHERE owner = '{owner}'"
        await asyncio.to_thread(self._postgres.sql, statement)
        link = Link(self._url)
        async with link.session(5) as connection:
            channel = await prepare(connection, "", self._url)
        writer = Writer(link, "another", Changes(), lambda _problem: None)
        writer.start(channel)
        await writer.do(Lapse(owner), patience=5)
        await writer.aclose()
        await self._stores.pop(owner).aclose()

    async def restart(self) -> None:
        while self._stores:
            await self._stores.popitem()[1].aclose()
