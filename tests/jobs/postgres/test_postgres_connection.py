"""postgres/connection.py: a server that does not answer is a lost connection, and errors get their meaning."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from postgres import Postgres
from postgres_proxy import proxied
from tinysvc.core.job_errors import StoreError, StoreFull
from tinysvc.jobs.postgres.connection import Again, Link, Lost, Readers, meaning, safe_url


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (asyncpg.ConnectionDoesNotExistError("gone"), Lost),
        (asyncpg.AdminShutdownError("bye"), Lost),
        (asyncpg.CannotConnectNowError("starting"), Lost),
        (asyncpg.ReadOnlySQLTransactionError("standby"), Lost),
        (asyncpg.IdleInTransactionSessionTimeoutError("idle"), Lost),
        (asyncpg.TooManyConnectionsError("full"), Lost),
        (asyncpg.InterfaceError("connection is closed"), Lost),
        (ConnectionRefusedError(), Lost),
        (TimeoutError(), Lost),
        (asyncpg.DeadlockDetectedError("deadlock"), Again),
        (asyncpg.LockNotAvailableError("locked"), Again),
        (asyncpg.DiskFullError("no space"), StoreFull),
        (asyncpg.UndefinedTableError("no table"), StoreError),
        (asyncpg.ClientConfigurationError("bad url"), ValueError),
        (KeyError("a mistake"), KeyError),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else each.__name__,
)
def test_errors_have_a_meaning(error: Exception, wanted: type[Exception]) -> None:
    assert type(meaning(error)) is wanted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:secret@db.example:5433/jobs?sslmode=require", "postgresql://db.example:5433/jobs"),
        ("postgres:///jobs", "postgres:///jobs"),
        ("postgresql://ada:secret@[::1/jobs", "postgresql://..."),
        ("postgresql://ada:secret@db:many/jobs", "postgresql://..."),
    ],
)
def test_messages_name_the_database_without_the_password(url: str, shown: str) -> None:
    assert safe_url(url) == shown


async def ask(link: Link) -> None:
    async with link.session(0.2) as connection:
        await connection.fetchval("SELECT 1")


async def insert_and_raise(link: Link, error: BaseException) -> None:
    async with link.session(5) as connection:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO t VALUES (1)")
        raise error


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_server_that_hangs_is_a_lost_connection(postgres: Postgres) -> None:
    async with proxied(postgres) as proxy:
        link = Link(proxy.url(postgres.url()))
        async with link.session(5) as connection:
            first = await connection.fetchval("SELECT pg_backend_pid()")
        assert link.pid == first
        proxy.frozen = True
        began = time.monotonic()
        with pytest.raises(Lost, match="did not answer"):
            await ask(link)
        assert time.monotonic() - began < 2
        proxy.frozen = False
        async with link.session(5) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert link.pid != first
        await link.aclose()


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_error_rolls_the_transaction_back(postgres: Postgres) -> None:
    link = Link(await postgres.create_schema())
    async with link.session(5) as connection:
        await connection.execute("CREATE TABLE t (n integer)")
    for error in (KeyError("ours"), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await insert_and_raise(link, error)
    async with link.session(5) as connection:
        assert await connection.fetchval("SELECT count(*) FROM t") == 0
    await link.aclose()


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_reads_outlive_a_cut_connection(postgres: Postgres) -> None:
    async with proxied(postgres) as proxy:
        readers = Readers(proxy.url(postgres.url()))
        wanted = [[(number,)] for number in range(9)]
        reads = (readers.fetch("SELECT $1::integer", number) for number in range(9))
        assert [[tuple(row) for row in rows] for rows in await asyncio.gather(*reads)] == wanted
        proxy.cut()
        await asyncio.sleep(0)
        assert len(await readers.fetch("SELECT 1")) == 1
        await proxy.stop()
        with pytest.raises(StoreError, match="cannot be read"):
            await readers.fetch("SELECT 1", seconds=0.2)
        await readers.aclose()
