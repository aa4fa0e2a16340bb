"""postgres/pages.py and the indexes: 100,000 waiting durable jobs cost no more than 100."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from postgres import Postgres
from postgres_stores import opened, submitted
from tinysvc.jobs.postgres import batch, operations, pages
from tinysvc.jobs.postgres.connection import SETTINGS

STATEMENTS = [
    (operations._STARTABLE, (0.0, ["/trainings"], [5], "1-owner")),
    (operations._RETENTION_OVER, (0.0,)),
    (operations._LONG_EXPIRED, (0.0,)),
    (operations._OWNED, ("1-owner",)),
    (batch._FIRST, ("1-owner", ["a" * 32])),
    (batch._BY_KEYS, (["/trainings"], ["key"])),
    (pages._BY_STATE, (["/trainings"], ["queued"], 1 << 62, 10, None)),
    (pages._BY_PATH, ("/users/7", 1 << 62, 10, None, None)),
]


@pytest.mark.asyncio
async def test_no_statement_reads_more_rows_than_it_returns(postgres: Postgres) -> None:
    """Fifteen hundred rows of other kinds, without statistics: a scan of the table, or a sort, would show."""
    url = await postgres.create_schema()
    async with opened(url) as store:
        await asyncio.gather(*(submitted(store, priority=number % 3) for number in range(1000)))
        await asyncio.gather(*(submitted(store, "/other", due=4e9) for _ in range(500)))
        connection = await asyncpg.connect(url, server_settings=SETTINGS)
        for statement, values in STATEMENTS:
            rows = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {_literal(statement, values)}")
            plan = "\n".join(row[0] for row in rows)
            assert "Seq Scan on tinysvc_jobs" not in plan, plan
            read = max(int(part.split()[0].rstrip(")")) for part in plan.split("actual rows=")[1:])
            assert read <= 11, plan
        await connection.close()
        assert (await store.page("/trainings", None, 1, "")).counts == {"queued": 1000}


def _literal(statement: str, values: tuple[object, ...]) -> str:
    """The statement with its values in place: EXPLAIN takes no parameters of an unknown type."""
    for number, value in reversed(list(enumerate(values, 1))):
        text = "NULL" if value is None else f"ARRAY{value}" if isinstance(value, list) else repr(value)
        statement = statement.replace(f"${number}", text)
    return statement
