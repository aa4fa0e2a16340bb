"""sqlite/thread.py: changes that wait are committed together; an error hits nothing but its cause."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tinysvc.core.job_errors import KeyReused, StoreError
from tinysvc.jobs.sqlite import thread as sqlite_thread
from tinysvc.jobs.sqlite.thread import SqliteThread


class Numbers:
    """A table of numbers. `commits` has the numbers of each transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits: list[list[int]] = []
        self.waiting: list[int] = []
        self.db: sqlite3.Connection = None  # type: ignore[assignment]

    def connect(self) -> sqlite3.Connection:
        self.db = sqlite3.connect(self.path, timeout=0.05, isolation_level=None)
        self.db.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY)")
        return self.db

    def begin(self) -> None: ...
    def finish(self) -> None: ...
    def committed(self) -> None:
        self.commits.append(self.waiting)
        self.waiting = []

    def rolled_back(self) -> None:
        self.waiting = []

    def unwritten(self) -> bool:
        return False

    def report(self) -> Callable[[], None] | None:
        return None

    def add(self, number: int) -> int:
        if number < 0:
            raise KeyReused(str(number))
        self.db.execute("INSERT INTO numbers VALUES (?)", (number,))
        self.waiting.append(number)
        return number * 10

    def all(self) -> list[int]:
        return [number for (number,) in self.db.execute("SELECT n FROM numbers ORDER BY n")]


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    return Numbers(tmp_path / "numbers.db")


@pytest_asyncio.fixture
async def thread(numbers: Numbers) -> AsyncIterator[SqliteThread]:
    thread = SqliteThread(numbers, "numbers.db")
    await thread.start()
    yield thread
    await thread.close()


_held: list[asyncio.Future[Any]] = []


async def hold(thread: SqliteThread) -> threading.Event:
    """Keep the thread busy until the event is set."""
    go, busy = threading.Event(), threading.Event()

    def wait() -> None:
        busy.set()
        go.wait(30)

    _held[:] = [asyncio.ensure_future(thread.read(wait))]
    await asyncio.to_thread(busy.wait, 30)
    return go


def adds(thread: SqliteThread, numbers: Numbers, *values: int) -> asyncio.Future[list[Any]]:
    changes = [asyncio.ensure_future(thread.change(partial(numbers.add, value))) for value in values]
    return asyncio.gather(*changes, return_exceptions=True)


@pytest.mark.asyncio
async def test_waiting_changes_are_committed_together(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, *range(20))
    await asyncio.sleep(0)
    go.set()
    assert await answers == [number * 10 for number in range(20)]
    assert numbers.commits == [list(range(20))]


@pytest.mark.asyncio
async def test_refused_change_leaves_the_others(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, 1, -2, 3)
    await asyncio.sleep(0)
    go.set()
    one, refused, three = await answers
    assert (one, three) == (10, 30)
    assert isinstance(refused, KeyReused)
    assert numbers.commits == [[1, 3]]


@pytest.mark.asyncio
async def test_failed_change_hits_nothing_but_its_cause(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, 1, 1, 2)
    await asyncio.sleep(0)
    go.set()
    first, second, third = await answers
    assert (first, third) == (10, 20)
    assert isinstance(second, StoreError)
    assert numbers.commits == [[1], [2]]
    assert await thread.read(numbers.all) == [1, 2]


@pytest.mark.asyncio
async def test_read_sees_committed_changes_only(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, 1)
    seen = asyncio.ensure_future(thread.read(numbers.all))
    await asyncio.sleep(0)
    go.set()
    await answers
    assert await seen == []
    assert await thread.read(numbers.all) == [1]


@pytest.mark.asyncio
async def test_lock_of_a_foreign_tool_gives_503_after_the_wait(thread: SqliteThread, numbers: Numbers) -> None:
    tool = sqlite3.connect(numbers.path, isolation_level=None)
    tool.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="another program has locked the file for 5 s"):
        await thread.change(lambda: numbers.add(1))
    assert "another program" in thread.problem
    tool.execute("ROLLBACK")
    tool.close()
    assert await thread.change(lambda: numbers.add(1)) == 10
    assert thread.problem == ""


@pytest.mark.asyncio
async def test_change_of_a_cancelled_caller_is_committed(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, 1)
    await asyncio.sleep(0)
    answers.cancel()
    go.set()
    assert await thread.change(lambda: numbers.add(2)) == 20
    assert await thread.read(numbers.all) == [1, 2]


@pytest.mark.asyncio
async def test_close_carries_out_what_waits(thread: SqliteThread, numbers: Numbers) -> None:
    answers = adds(thread, numbers, 1, 2)
    await asyncio.sleep(0)
    await thread.close()
    await thread.close()
    assert await answers == [10, 20]
    with pytest.raises(StoreError, match="the store is closed"):
        await thread.change(lambda: numbers.add(3))


@pytest.mark.asyncio
async def test_break_down_refuses_the_changes_that_wait(thread: SqliteThread, numbers: Numbers) -> None:
    reasons: list[str] = []
    thread.on_broken.add(reasons.append)
    go = await hold(thread)
    answers = adds(thread, numbers, 1)
    await asyncio.sleep(0)
    thread.break_down("fsync failed")
    thread.break_down("again")
    go.set()
    (error,) = await answers
    assert isinstance(error, StoreError)
    assert "in doubt: fsync failed" in str(error)
    with pytest.raises(StoreError, match="in doubt"):
        await thread.read(numbers.all)
    await thread.close()
    assert [reason.endswith("fsync failed") for reason in reasons] == [True]
    assert "fsync failed" in thread.problem


@pytest.mark.asyncio
async def test_forked_child_must_not_use_the_connection(
    thread: SqliteThread, numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(StoreError, match="a forked process must not use the store of its parent"):
        await thread.change(lambda: numbers.add(1))


@pytest.mark.asyncio
async def test_error_at_the_start_is_raised(tmp_path: Path) -> None:
    thread = SqliteThread(Numbers(tmp_path / "missing" / "numbers.db"), "numbers.db")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        await thread.start()
    await thread.close()


class Doubtful(sqlite3.OperationalError):
    """An error as SQLite raises it."""

    sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    sqlite_errorname = "SQLITE_IOERR_FSYNC"


def fail(error: Exception) -> None:
    raise error


@pytest.mark.asyncio
async def test_doubtful_error_of_a_read_ends_the_thread(thread: SqliteThread, numbers: Numbers) -> None:
    with pytest.raises(StoreError, match="in doubt: no such page"):
        await thread.read(partial(fail, Doubtful("no such page")))
    with pytest.raises(StoreError, match="in doubt"):
        await thread.change(partial(numbers.add, 1))


@pytest.mark.asyncio
async def test_doubtful_error_refuses_the_rest_of_the_group(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, 1)
    broken = asyncio.ensure_future(thread.change(partial(fail, Doubtful("disk"))))
    later = adds(thread, numbers, 2)
    await asyncio.sleep(0)
    go.set()
    results = [*await answers, *await asyncio.gather(broken, return_exceptions=True), *await later]
    assert [type(each) for each in results] == [StoreError] * 3


@pytest.mark.asyncio
async def test_bug_of_one_change_is_its_own_error(thread: SqliteThread, numbers: Numbers) -> None:
    go = await hold(thread)
    answers = adds(thread, numbers, 1)
    bug = asyncio.ensure_future(thread.change(partial(fail, ZeroDivisionError())))
    await asyncio.sleep(0)
    go.set()
    assert await answers == [10]
    with pytest.raises(ZeroDivisionError):
        await bug


class Refusing:
    """A connection whose checkpoint fails."""

    def __init__(self, db: sqlite3.Connection, error: Exception) -> None:
        self._db = db
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith("PRAGMA wal_checkpoint"):
            raise self._error
        return self._db.execute(statement, *values)


@pytest.mark.asyncio
async def test_log_is_copied_after_many_rows_of_one_change_or_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep is one change of many rows, and progress is written without a change: the log must not grow by them."""
    monkeypatch.setattr(sqlite_thread, "CHECKPOINT_CHANGES", 10)
    numbers, count = Numbers(tmp_path / "numbers.db"), iter(range(1000, 10_000))
    statements: list[str] = []

    def connect() -> sqlite3.Connection:
        Numbers.connect(numbers).set_trace_callback(statements.append)
        return numbers.db

    def add_many() -> None:
        for _ in range(11):
            numbers.add(next(count))

    monkeypatch.setattr(numbers, "connect", connect)
    monkeypatch.setattr(numbers, "unwritten", lambda: True)
    monkeypatch.setattr(numbers, "finish", lambda: numbers.add(next(count)))
    monkeypatch.setattr(sqlite_thread, "FLUSH_PAUSE", 0.001)
    thread = SqliteThread(numbers, "numbers.db")
    await thread.start()
    for seen in (0, 1):  # by progress alone, then by one change
        while sum("wal_checkpoint" in each for each in statements) <= seen:
            await (asyncio.sleep(0.01) if seen == 0 else thread.change(add_many))
    await thread.close()
    assert thread.problem == ""


@pytest.mark.asyncio
@pytest.mark.parametrize("doubtful", [True, False])
async def test_failed_checkpoint(
    doubtful: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed fsync ends the thread; a full disk leaves the log to grow."""
    error = Doubtful("disk") if doubtful else sqlite3.OperationalError("full")
    numbers = Numbers(tmp_path / "numbers.db")
    monkeypatch.setattr(sqlite_thread, "CHECKPOINT_CHANGES", 2)
    monkeypatch.setattr(numbers, "connect", lambda: Refusing(Numbers.connect(numbers), error))
    thread = SqliteThread(numbers, "numbers.db")
    await thread.start()
    assert [await thread.change(partial(numbers.add, each)) for each in (1, 2)] == [10, 20]
    if doubtful:
        with pytest.raises(StoreError, match="in doubt"):
            await thread.change(partial(numbers.add, 3))
    else:
        assert await thread.change(partial(numbers.add, 3)) == 30
    assert "cannot be copied into the file" in caplog.text
    await thread.close()
