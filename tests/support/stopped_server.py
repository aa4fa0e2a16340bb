"""A process with a running attempt in PostgreSQL, for a test that stops it: `python stopped_server.py URL LEASE`.

It has a child in place of a worker, kills it when the lease is lost, and prints what happens, in order.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys

from postgres_stores import HEAD, claimed
from tinysvc.jobs.postgres.store import PostgresStore


async def main(url: str, lease: str) -> None:
    store = PostgresStore(url, lease=float(lease))
    await store.open("1-stopped", "service")
    record = (await claimed(store)).record
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:

        def kill(attempts: list[tuple[str, int]]) -> None:
            worker.kill()
            print("killed", *attempts[0], flush=True)

        store.lost(kill)
        print("running", worker.pid, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print("finish", await store.finish(record.id, record.attempt, HEAD, b"late"), flush=True)
        await store.aclose()
        worker.kill()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
