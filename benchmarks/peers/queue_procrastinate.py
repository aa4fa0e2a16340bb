"""Procrastinate on the PostgreSQL server at $BENCH_POSTGRES."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import queue_tasks
from procrastinate import App, PsycopgConnector

URL = os.environ["BENCH_POSTGRES"]
procrastinate = App(connector=PsycopgConnector(conninfo=URL, max_size=32), import_paths=["queue_procrastinate"])
note = procrastinate.task(name="note")(queue_tasks.note)

if os.environ.get("QUEUE_ROLE") != "worker":
    import sys

    from queue_front import front

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with procrastinate.open_async():
            if not await procrastinate.check_connection_async():  # the database has no schema yet
                await procrastinate.schema_manager.apply_schema_async()
            yield

    async def add(sent: float, path: str) -> None:
        await note.defer_async(sent=sent, path=path)

    options = ["--app", "queue_procrastinate.procrastinate", "worker", "--concurrency", "1"]
    app = front(
        None,
        ["env", "QUEUE_ROLE=worker", sys.executable, "-m", "procrastinate", *options],
        add_async=add,
        lifespan=opened,
    )
