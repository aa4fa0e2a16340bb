"""The SQLite store and the store in memory give the same answers to the same commands, whatever these are."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from sqlite_harness import FileHarness
from store_model import COMMANDS, START, Clock, Command, compare


@given(COMMANDS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_sqlite_store_behaves_as_the_model(commands: list[Command]) -> None:
    async def run(folder: str) -> None:
        clock = Clock()
        harness = FileHarness(Path(folder) / "jobs.db", clock)
        try:
            await compare(harness, commands, START, clock)
        finally:
            await harness.restart()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))
