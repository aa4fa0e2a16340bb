"""The PostgreSQL store and the store in memory give the same answers to the same commands, whatever these are."""

from __future__ import annotations

import asyncio
import time

from hypothesis import HealthCheck, given, settings

from postgres import Postgres
from postgres_servers import Servers
from store_model import COMMANDS, Command, compare


@given(COMMANDS)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_postgres_store_behaves_as_the_model(postgres: Postgres, commands: list[Command]) -> None:
    async def run() -> None:
        servers = Servers(postgres, await postgres.create_schema())
        try:
            await compare(servers, commands, time.time(), gives_back=True)
        finally:
            await servers.restart()

    asyncio.run(run())
