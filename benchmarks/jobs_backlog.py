"""The store of durable jobs by itself, with few and with many waiting jobs: what one of its steps takes.

python jobs_backlog.py STORE FEW MANY ROUNDS      prints seconds: step -> "few" | "many" -> one number for each round

STORE is "sqlite", or a PostgreSQL URL with {name} for the database, which must exist under the names few and many.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from tinysvc.jobs.opening import new_owner, store_of
from tinysvc.jobs.records import NewJob, ResultHead
from tinysvc.jobs.store import Store

ROUTE = "/jobs"
TOGETHER = 32
TIMES = 20
"""Repetitions in one round, whose median counts."""


def new_job() -> NewJob:
    return NewJob(route=ROUTE, path=ROUTE, request=bytes(300), body=b'{"sent":0.0,"path":""}', keep=60.0)


async def fill(store: Store, count: int) -> None:
    for start in range(0, count, 1000):
        await asyncio.gather(*[store.submit(new_job()) for _ in range(min(1000, count - start))])


async def submit(store: Store) -> None:
    await asyncio.gather(*[store.submit(new_job()) for _ in range(TOGETHER)])


async def claim(store: Store) -> None:
    claimed = await store.claim({ROUTE: 1}, 1)
    assert len(claimed) == 1


async def page(store: Store) -> None:
    found = await store.page(None, None, 50, "")
    assert len(found.records) == 50


async def tidy(store: Store) -> None:
    """Back to as many waiting jobs as before the round."""
    head = ResultHead(status=200, content_type=None, headers=[], size=0)
    for each in await store.claim({ROUTE: TOGETHER * TIMES}, (TOGETHER - 1) * TIMES):
        await store.finish(each.record.id, each.record.attempt, head, b"")


STEPS: dict[str, Callable[[Store], Awaitable[None]]] = {"submit 32": submit, "claim": claim, "page": page}


async def measure(urls: dict[str, str], counts: dict[str, int], rounds: int) -> dict[str, dict[str, list[float]]]:
    stores = {size: store_of(url) for size, url in urls.items()}
    for size, store in stores.items():
        await store.open(new_owner(), "backlog")
        await fill(store, counts[size])
    found: dict[str, dict[str, list[float]]] = {step: {size: [] for size in stores} for step in STEPS}
    for number in range(rounds + 1):
        for step, act in STEPS.items():
            for size, store in stores.items():
                times = []
                for _ in range(TIMES):
                    begin = time.perf_counter()
                    await act(store)
                    times.append(time.perf_counter() - begin)
                if number:  # the first round warms up
                    found[step][size].append(statistics.median(times))
        for store in stores.values():
            await tidy(store)
    for store in stores.values():
        await store.aclose()
    return found


def main(store: str, few: str, many: str, rounds: str) -> None:
    counts = {"few": int(few), "many": int(many)}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        urls = {
            size: str(Path(folder) / f"{size}.db") if store == "sqlite" else store.replace("{name}", size)
            for size in counts
        }
        print(json.dumps(uvloop.run(measure(urls, counts, int(rounds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
