"""A process that shares a store, as a server process does, and obeys lines: `python store_process.py STORE OWNER`.

Each line is a JSON list: the name of a method of this file, and its arguments. The answer is a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import uvloop

from tinysvc.core.job_errors import JobError
from tinysvc.jobs.keeper.shared_store import SharedStore
from tinysvc.jobs.records import NewJob, ResultHead
from tinysvc.jobs.sqlite.store import SqliteStore

ROUTE = "/trainings"


class Commands:
    def __init__(self, store: SharedStore) -> None:
        self.store = store

    async def role(self) -> dict[str, Any]:
        return {"keeper": self.store.is_keeper, "problem": self.store.problem}

    async def submit(self, key: str) -> str:
        """Submit with a key until it is accepted. Returns the id."""
        new = NewJob(route=ROUTE, request=b"", key=key, keep=60.0, max_attempts=3)
        return (await self.store.submit(new)).record.id

    async def claim(self) -> list[tuple[str, int]]:
        return [(each.record.id, each.record.attempt) for each in await self.store.claim({ROUTE: 1}, 1)]

    async def finish(self, job_id: str, attempt: int) -> bool:
        return await self.store.finish(job_id, attempt, ResultHead(status=200, content_type=None), b"result")

    async def record(self, job_id: str) -> dict[str, Any]:
        record = await self.store.get(job_id)
        assert record is not None
        return {"state": record.state, "owner": record.owner, "causes": [each.cause for each in record.attempts]}

    async def fork(self) -> int:
        """Leave a process behind that holds the lock, as a job's forked child does. Returns its pid."""
        held = os.dup(self.store.inherited[0])
        child = os.fork()
        if child:
            os.close(held)
            return child
        for stream in (0, 1, 2):
            os.close(stream)
        threading.Event().wait(60)
        os._exit(0)


async def main(path: str, owner: str) -> None:
    store = SharedStore(Path(path), SqliteStore)
    await store.open(owner, "shop")
    print("ready", flush=True)
    commands, loop = Commands(store), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, *arguments = json.loads(line)
        try:
            answer = await getattr(commands, name)(*arguments)
        except JobError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await store.aclose()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
