"""One SQLite connection in one thread: changes that wait are committed together.

    event loop           change(f)   change(g)         change(h)
    thread               BEGIN f g COMMIT (fsync)      BEGIN h ... COMMIT

While the thread waits for an fsync, further changes arrive; the next commit takes all of them. So the changes a second
are not limited by the fsyncs a second of the disk. There is no timer: an idle store commits at once.

Why one connection: two of them would meet SQLITE_BUSY, could keep each other from a checkpoint, and could damage the
file (the WAL-reset race of SQLite 3.7.0 to 3.51.2).

*Errors.* A change raises its own errors before it writes. An error of SQLite rolls the transaction back; then each
change gets a transaction of its own, and only the change that caused the error fails. Two kinds are different.
SQLITE_BUSY: SQLite has waited for LOCK_WAIT seconds already, so all changes fail. An error that leaves the file in
doubt (a failed fsync, a damaged file): the thread ends. It must not try the fsync again: Linux reports a lost page
once, and the next fsync succeeds without it.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from ...core.job_errors import JobError, StoreError, StoreFull
from ..callbacks import Callbacks

log = logging.getLogger("tinysvc.jobs")

LOCK_WAIT = 5.0
"""Seconds for which a change waits for a foreign tool that has locked the file."""
FLUSH_PAUSE = 1.0
"""Seconds after which progress is written, if there is no other change: a crash loses no more of it."""
CHECKPOINT_CHANGES = 2000
"""Changed rows after which the WAL is copied into the file, also those of a sweep or of progress: else it grows without
end. SQLite's own checkpoint hides a failed fsync, and is off."""

FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
"""The disk is full. SQLITE_IOERR_SHMSIZE: there was no room for the shared-memory file."""
DOUBTFUL = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""Primary codes of errors that leave the content of the file in doubt."""
CERTAIN = {*FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_NOMEM}
"""Exceptions from DOUBTFUL: the operating system has refused a write (a quota, say), and nothing was committed."""


class Work(Protocol):
    """The tables, as the thread sees them. All methods are called in the thread."""

    def connect(self) -> sqlite3.Connection: ...
    def begin(self) -> None:
        """A transaction has begun."""

    def finish(self) -> None:
        """Write the rows that are left: the transaction is about to be committed."""

    def committed(self) -> None: ...
    def rolled_back(self) -> None: ...
    def unwritten(self) -> bool:
        """Whether progress is left to write, for which no caller waits."""

    def report(self) -> Callable[[], None] | None:
        """A function for the event loop, which reports the changes."""


class _Item:
    """One operation that waits for the thread."""

    __slots__ = ("error", "function", "future", "result", "writes")

    def __init__(self, function: Callable[[], Any], writes: bool, future: asyncio.Future[Any]) -> None:
        self.function = function
        self.writes = writes
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class SqliteThread:
    """The thread of one connection.

    Attributes:
        broken: Why the thread has ended by itself; "" otherwise.
        problem: Why the last change failed; "" after one that succeeded.
    """

    def __init__(self, work: Work, name: str) -> None:
        self.broken = ""
        self.problem = ""
        self.on_broken: Callbacks[str] = Callbacks()
        self._work = work
        self._name = name
        self._pid = os.getpid()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._copied = 0  # changed rows at the last checkpoint
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name="tinysvc job store", daemon=True)
        self._db: sqlite3.Connection = None  # type: ignore[assignment]  # the thread connects

    async def start(self) -> None:
        """Open the connection.

        Raises:
            Exception: The error of `Work.connect`.
        """
        self._thread.start()
        await self._opened

    async def change(self, function: Callable[[], Any]) -> Any:
        """Call `function` in a transaction, and return its result after the commit."""
        return await self._put(function, writes=True)

    async def read(self, function: Callable[[], Any]) -> Any:
        """Call `function` between two transactions."""
        return await self._put(function, writes=False)

    def _put(self, function: Callable[[], Any], writes: bool) -> asyncio.Future[Any]:
        if self._closed or self.broken or os.getpid() != self._pid:
            raise StoreError(f"{self._name}: {self.broken or self._why_closed()}.")
        future = self._loop.create_future()
        self._queue.put(_Item(function, writes, future))
        return future

    def _why_closed(self) -> str:
        return "the store is closed" if self._closed else "a forked process must not use the store of its parent"

    async def close(self) -> None:
        """Carry out the operations that wait, and close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    # In the thread

    def _main(self) -> None:
        try:
            self._db = self._work.connect()
        except BaseException as error:
            self._call(_fail, self._opened, error)
            self._call(_set, self._ended)
            return
        self._call(_set, self._opened)
        try:
            while self._serve():
                pass
        finally:
            if self.broken:
                _never_close(self._db)
            else:
                self._db.close()
            self._call(_set, self._ended)

    def _serve(self) -> bool:
        """Carry out all operations that wait. False at the end."""
        items, more = self._take()
        if self.broken:
            self._refuse_all(items)
            return False
        reads = [item for item in items if not item.writes]
        writes = [item for item in items if item.writes]
        for item in reads:
            self._run(item)
        if reads:
            self._deliver(reads)
        if writes or self._work.unwritten():
            self._commit(writes)
            self._deliver(writes)
            self._checkpoint()
        if self.broken:
            self._refuse_all([])
            return False
        return more

    def _take(self) -> tuple[list[_Item], bool]:
        """All items that wait, at least one unless there is progress to write; False after the last one."""
        items: list[_Item] = []
        try:
            item = self._queue.get(timeout=FLUSH_PAUSE if self._work.unwritten() else None)
            while item is not None:
                items.append(item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return items, True
        return items, False

    def _commit(self, items: list[_Item]) -> None:
        """Carry out the changes in one transaction; if it fails, each in one of its own."""
        error = self._transaction(items)
        if error is None:
            self.problem = self.broken  # a file beside the store may have broken it meanwhile
            return
        if self._code(error) == sqlite3.SQLITE_BUSY or self.broken or len(items) <= 1:
            self._fail(items, error)
            return
        for item in items:
            alone = self.broken or self._transaction([item])
            if alone:
                self._fail([item], alone if isinstance(alone, Exception) else error)

    def _transaction(self, items: list[_Item]) -> Exception | None:
        """The error that has rolled it back, or None."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._work.begin()
            for item in items:
                item.result = item.error = None
                try:
                    item.result = item.function()
                except JobError as error:  # raised before the change has written anything
                    item.error = error
            self._work.finish()
            self._db.execute("COMMIT")
        except Exception as error:
            self._after_error(error)
            self._work.rolled_back()
            return error
        self._work.committed()
        return None

    def _after_error(self, error: Exception) -> None:
        if self._is_doubtful(error):
            self._break(error)
        elif self._db.in_transaction:
            with suppress(sqlite3.Error):  # an error may have rolled it back already
                self._db.execute("ROLLBACK")

    def _run(self, item: _Item) -> None:
        try:
            item.result = item.function()
        except Exception as error:
            if self._is_doubtful(error):
                self._break(error)
            item.error = self._error_of(error)

    def _fail(self, items: list[_Item], error: Exception) -> None:
        self.problem = self.broken or str(self._error_of(error))
        for item in items:
            item.error = self._error_of(error)

    def _is_doubtful(self, error: Exception) -> bool:
        return self._code(error) & 0xFF in DOUBTFUL and self._code(error) not in CERTAIN

    def _code(self, error: Exception) -> int:
        """The extended error code of SQLite, or 0."""
        return getattr(error, "sqlite_errorcode", None) or 0

    def _error_of(self, error: Exception) -> Exception:
        """The error for the caller."""
        if not isinstance(error, sqlite3.Error):
            return error
        if self._code(error) in FULL:
            return StoreFull(f"{self._name}: the disk is full ({error}). Free some space.")
        if self._code(error) & 0xFF == sqlite3.SQLITE_BUSY:
            return StoreError(
                f"{self._name}: another program has locked the file for {LOCK_WAIT:.0f} s. Close that program."
            )
        return StoreError(f"{self._name}: {self.broken or error}.")

    def _break(self, error: Exception) -> None:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        self.break_down(f"{error} ({name})")

    def break_down(self, reason: str) -> None:
        """End the use of the file: its content is in doubt until it is opened again."""
        if self.broken:
            return
        self.broken = f"the store is closed, as its file is in doubt: {reason}"
        self.problem = self.broken
        log.critical("%s: %s. The server must start again.", self._name, self.broken)
        self._call(self.on_broken.call, self.broken)
        self._queue.put(None)

    def _checkpoint(self) -> None:
        if self._db.total_changes - self._copied < CHECKPOINT_CHANGES or self.broken:
            return
        self._copied = self._db.total_changes
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self._after_error(error)  # a full disk: the WAL grows until the next time
            log.warning("%s: the WAL cannot be copied into the file: %s", self._name, error)

    def _refuse_all(self, items: list[_Item]) -> None:
        """After a break-down: refuse the operations that wait."""
        self._fail(items, StoreError(f"{self._name}: {self.broken}."))
        self._deliver(items)
        self._call(self._refuse_rest)

    def _refuse_rest(self) -> None:
        """On the event loop, where `_put` runs: no item can follow."""
        waiting = []
        with suppress(queue.Empty):
            while True:
                waiting.append(self._queue.get_nowait())
        items = [item for item in waiting if item is not None]
        self._fail(items, StoreError(f"{self._name}: {self.broken}."))
        _set_results(items, None)

    def _deliver(self, items: list[_Item]) -> None:
        self._call(_set_results, items, self._work.report())

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        with suppress(RuntimeError):  # the event loop is closed: there is no caller left
            self._loop.call_soon_threadsafe(function, *args)


def _set_results(items: list[_Item], report: Callable[[], None] | None) -> None:
    for item in items:
        if item.future.done():  # the caller was cancelled
            continue
        if item.error is not None:
            item.future.set_exception(item.error)
        else:
            item.future.set_result(item.result)
    if report is not None:
        report()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _never_close(db: sqlite3.Connection) -> None:
    """Keep the connection until the process ends: closing would copy the WAL, and try the failed fsync again."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))
