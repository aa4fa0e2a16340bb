"""Named steps of durable jobs at which a process kills itself, as `kill -9` would. The app of a test imports this.

The test writes the name of a step into the file `kill-here` of the server's folder. The first process that reaches the
step removes the file and dies: a step is reached once, and the processes that recover from it survive. The steps:

    before-commit:EVENT, after-commit:EVENT    in the transaction of the store that has this event of jobs/states.py
    after-file                                 a large result is in its file, its row is still to come
    NAME                                       of `reach(NAME)` in a handler: the worker dies

Production code knows nothing of this: the functions are replaced here.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from tinysvc.jobs import states
from tinysvc.jobs.sqlite import files

FOLDER = Path(os.environ.get("KILL_POINTS_FOLDER", "."))
KILL_HERE = FOLDER / "kill-here"

EVENTS = ("accepted", "claim", "save", "finish", "fail", "release", "lapse", "stopped", "cancel", "retry", "expire")


def reach(step: str) -> None:
    """This process has reached a step."""
    try:
        if KILL_HERE.read_text() != step:
            return
        KILL_HERE.unlink()  # only one of several processes succeeds
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_events: set[str] = set()
"""Those of the present transaction. One thread of one process has the connection."""


def _noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any) -> Any:
        new = function(*args)
        if not isinstance(new, states.Refusal):
            _events.add(name)
        return new

    return call


class _Connection(sqlite3.Connection):
    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            return self._commit()
        if sql.startswith("BEGIN"):
            _events.clear()
        return super().execute(sql, *args)

    def _commit(self) -> sqlite3.Cursor:
        events = sorted(_events)
        for event in events:
            reach(f"before-commit:{event}")
        cursor = super().execute("COMMIT")
        for event in events:
            reach(f"after-commit:{event}")
        return cursor


def _install_in_asyncpg() -> None:
    from asyncpg.connection import Connection

    from tinysvc.jobs.postgres.store import PostgresStore

    execute = Connection.execute

    async def executed(self: Connection, query: str, *args: Any, **options: Any) -> str:
        events = sorted(_events) if query == "COMMIT" else []
        for event in events:
            reach(f"before-commit:{event}")
        status = str(await execute(self, query, *args, **options))
        for event in events:
            reach(f"after-commit:{event}")
        if events:
            _events.clear()
        return status

    Connection.execute = executed
    PostgresStore.__init__.__kwdefaults__ = {"lease": float(os.environ["KILL_POINTS_LEASE"])}


def install() -> None:
    """Replace the functions, in this process."""
    if "KILL_POINTS_LEASE" in os.environ:
        _install_in_asyncpg()
    for name in EVENTS:
        setattr(states, name, _noted(name, getattr(states, name)))
    connect, write = sqlite3.connect, files.Files.write

    def connected(*args: Any, **options: Any) -> sqlite3.Connection:
        return connect(*args, **{**options, "factory": _Connection})  # type: ignore[no-any-return]

    def written(self: files.Files, name: str, content: bytes) -> str:
        found = write(self, name, content)
        reach("after-file")
        return found

    sqlite3.connect = connected  # type: ignore[assignment]
    files.Files.write = written  # type: ignore[method-assign]
