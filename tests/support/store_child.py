"""A process that uses a SQLite store: python store_child.py PATH SCENARIO.

Each line on its output is JSON: a change that is durable from now on. Tests run this process under strace, on a small
disk, or kill it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tinysvc.core.errors import ConfigurationError
from tinysvc.core.job_errors import StoreError
from tinysvc.jobs.records import Failure, NewJob, ResultHead
from tinysvc.jobs.sqlite import thread
from tinysvc.jobs.sqlite.store import SqliteStore

ROUTE = "/trainings"
ROOM = {ROUTE: 1000}
thread.CHECKPOINT_CHANGES = 20
HEAD = ResultHead(status=200, content_type="text/plain", size=1)


def report(**line: Any) -> None:
    """One write, and no buffer: the order with the writes of the store counts."""
    os.write(1, json.dumps(line).encode() + b"\n")


def content(number: int, size: int = 0) -> bytes:
    """Content that a test can check: from its number, large for each fifth."""
    return f"content {number} ".encode() * (9000 if number % 5 == 0 else 1 + size)


async def submit(store: SqliteStore, number: int) -> str:
    new = NewJob(route=ROUTE, request=b"\x80", body=content(number), key=f"k{number}", max_attempts=5)
    job_id = (await store.submit(new)).record.id
    report(op="submit", id=job_id, number=number)
    return job_id


async def lives(store: SqliteStore) -> None:
    """Durable jobs through all states, several at the same time."""
    for first in range(0, 20, 4):
        await asyncio.gather(*(submit(store, number) for number in range(first, first + 4)))
        claimed = await store.claim(ROOM, 4)
        assert len(claimed) == 4

        async def end(place: int, job_id: str, attempt: int, first: int = first) -> None:
            if place == 0:
                report(op="ending", id=job_id, state="failed")
                assert await store.fail(job_id, attempt, Failure("error", "no", problem={"status": 500}))
                report(op="failed", id=job_id)
            elif place == 1:
                for number in (5, 6):
                    assert await store.save(job_id, attempt, content(number))
                    report(op="saved", id=job_id, number=number)
                assert await store.release(job_id, attempt, "shutdown")
            elif place == 2:
                report(op="ending", id=job_id, state="cancelled")
                await store.cancel(job_id)
                report(op="cancelled", id=job_id)
                await store.stopped(job_id, attempt)
            else:
                report(op="ending", id=job_id, state="succeeded")
                assert await store.finish(job_id, attempt, HEAD, content(first))
                report(op="finished", id=job_id, number=first)

        await asyncio.gather(*(end(place, each.record.id, each.record.attempt) for place, each in enumerate(claimed)))
        if await store.schedule("nightly", float(first + 1), NewJob(route="/cleanups", request=b"\x80")):
            report(op="tick", tick=first + 1)
        if first == 12:
            await store.sweep(time.time())


async def flood(store: SqliteStore) -> None:
    """Submit until the disk is full, then make room, and end what was claimed."""
    claimed = []
    for number in range(1, 100_000):
        try:
            await submit(store, number)
        except StoreError as error:
            report(op="refused", status=error.status, text=str(error), problem=store.problem)
            break
        if number == 3:
            claimed = await store.claim(ROOM, 3)
    assert (await store.get(claimed[0].record.id)) is not None
    try:
        await store.finish(claimed[0].record.id, 1, HEAD, content(5) * 100)
    except StoreError as error:
        report(op="refused", status=error.status, text=str(error), problem=store.problem)
    Path(sys.argv[1]).with_name("ballast").unlink()
    await store.finish(claimed[0].record.id, 1, HEAD, content(5))
    report(op="finished", id=claimed[0].record.id, number=5, problem=store.problem)
    await submit(store, 0)


async def retrying(store: SqliteStore) -> None:
    """One change after the other; a refused one is tried again."""
    for number in range(1, 60):
        try:
            await submit(store, number)
        except StoreError as error:
            report(op="refused", status=error.status, text=str(error), problem=store.problem)
            await submit(store, number)
    report(op="done", problem=store.problem)


async def group(store: SqliteStore) -> None:
    """Many changes at the same time."""
    await asyncio.gather(*(submit(store, number) for number in range(1, 61) if number % 5))
    report(op="done")


async def main() -> None:
    store = SqliteStore(sys.argv[1])
    broken = asyncio.get_running_loop().create_future()
    await store.open("server", "service")
    store.broken(broken.set_result)
    scenario = asyncio.ensure_future(globals()[sys.argv[2]](store))
    await asyncio.wait([scenario, broken], return_when=asyncio.FIRST_COMPLETED)
    if scenario.done() and isinstance(scenario.exception(), StoreError):
        await asyncio.wait([broken], timeout=20)  # the report comes a turn of the loop after the error
    if not broken.done():
        await scenario
        await store.aclose()
        return
    await asyncio.wait([scenario])
    report(op="broken", reason=broken.result(), problem=store.problem, error=repr(scenario.exception()))
    try:
        await store.submit(NewJob(route=ROUTE, request=b"\x80"))
    except StoreError as error:
        report(op="refused", status=error.status, text=str(error))
    await store.aclose()
    sys.exit(1)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ConfigurationError as error:
        report(op="not opened", text=str(error))
        sys.exit(3)
