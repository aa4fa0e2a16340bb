"""The store of durable jobs on one machine: SQLite, with nothing to install.

    jobs.db             the records; small requests, saved values and results
    jobs.db-wal, -shm   SQLite's own
    jobs.db-files/      larger ones, a file each (files.py)

Three layers: this file is the `Store` on the event loop, thread.py commits, tables.py has the SQL. One
process alone may have the store open: the keeper. Its lock is not a matter of this file.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ...core.job_errors import StoreError
from ..callbacks import Callbacks
from ..records import (
    CancelOutcome,
    Change,
    Claimed,
    Failure,
    NewJob,
    Page,
    Progress,
    Record,
    ResultHead,
    State,
    Submitted,
)
from ..states import Refusal
from .database_file import prepare_file
from .files import INLINE, Files, FsyncFailed
from .tables import Claim, Content, Tables
from .thread import SqliteThread

FILE_THREADS = 4
"""Large contents that are written or read at the same time."""


class SqliteStore:
    """A `LocalStore` in one SQLite file.

    Args:
        path: The file; it is created, with mode 0600, if there is none.
        clock: Returns the Unix time in seconds. It may jump.
    """

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.path = Path(os.path.realpath(path))
        self.inherited: tuple[int, ...] = ()
        self._files = Files(self.path.with_name(f"{self.path.name}-files"))
        self._watchers: Callbacks[Change] = Callbacks()
        self._file_threads: ThreadPoolExecutor = None  # type: ignore[assignment]  # set by open
        self._thread: SqliteThread = None  # type: ignore[assignment]  # set by open
        self._tables: Tables = None  # type: ignore[assignment]  # set by open

    @property
    def problem(self) -> str:
        return self._thread.problem if self._thread else ""

    async def open(self, owner: str, service: str) -> None:
        """Open the file.

        Args:
            owner: Name of this server process.
            service: Name of the service. Empty: any service's (command line).

        Raises:
            ConfigurationError: The file must not be used: it is damaged, of a newer tinysvc, of another service, on a
                network file system, ... It was not changed.
        """
        loop = asyncio.get_running_loop()
        self._file_threads = ThreadPoolExecutor(FILE_THREADS, "tinysvc job files")
        self._tables = Tables(self.path, owner, service, self._report, self._clock)
        self._thread = SqliteThread(self._tables, str(self.path))
        try:
            await loop.run_in_executor(self._file_threads, prepare_file, self.path)
            await self._thread.start()
        except BaseException:
            self._file_threads.shutdown(wait=False)
            raise

    async def aclose(self) -> None:
        if self._thread is None:  # it was never opened
            return
        await self._thread.close()
        await asyncio.get_running_loop().run_in_executor(None, self._file_threads.shutdown)

    # The life of a durable job

    async def submit(self, new: NewJob) -> Submitted:
        submitted: Submitted
        if len(new.body) <= INLINE:
            submitted = await self._change(self._tables.submit, new, None)
            return submitted
        file = await self._with_files(self._files.write, "request", new.body)
        submitted = await self._settled(file, self._tables.submit, new, file, kept=lambda answer: answer.is_new)
        return submitted

    async def claim(self, capacity: Mapping[str, int], total: int, *, owner: str = "") -> list[Claimed]:
        claims: list[Claim] = await self._change(self._tables.claim, dict(capacity), total, owner)
        return [claimed for each in claims if (claimed := await self._with_content(each))]

    async def _with_content(self, claim: Claim) -> Claimed | None:
        """The started attempt, with its files; None if they cannot be read: then it has failed."""
        record = claim.record
        try:
            body = await self._read(claim.body)
            saved = await self._read(claim.saved) if claim.saved else None
        except OSError as error:
            detail = f"The stored request cannot be read: {error.strerror}."
            await self.fail(record.id, record.attempt, Failure("error", detail))
            return None
        return Claimed(record, claim.request, body, saved)

    async def _read(self, content: Content) -> bytes:
        if content.file is None:
            return content.body or b""
        body: bytes = await self._with_files(self._files.read, content.file)
        return body

    async def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        return bool(await self._thread.read(partial(self._tables.progress, job_id, attempt, value)))

    async def save(self, job_id: str, attempt: int, value: bytes) -> bool:
        content, file = await self._content(f"saved-{job_id}", value)
        return bool(await self._settled(file, self._tables.save, job_id, attempt, content))

    async def finish(self, job_id: str, attempt: int, head: ResultHead, body: bytes) -> bool:
        content, file = await self._content(f"result-{job_id}", body)
        return bool(await self._settled(file, self._tables.finish_attempt, job_id, attempt, head, content))

    async def fail(self, job_id: str, attempt: int, failure: Failure) -> bool:
        return bool(await self._change(self._tables.fail, job_id, attempt, failure))

    async def release(self, job_id: str, attempt: int, cause: str) -> bool:
        return bool(await self._change(self._tables.release, job_id, attempt, cause))

    async def cancel(self, job_id: str) -> CancelOutcome:
        outcome: CancelOutcome = await self._change(self._tables.cancel, job_id)
        return outcome

    async def stopped(self, job_id: str, attempt: int) -> bool:
        return bool(await self._change(self._tables.stopped, job_id, attempt))

    async def retry(self, job_id: str) -> Record | Refusal | None:
        record: Record | Refusal | None = await self._change(self._tables.retry, job_id)
        return record

    # Questions

    async def get(self, job_id: str) -> Record | None:
        record: Record | None = await self._thread.read(partial(self._tables.get, job_id))
        return record

    async def result(self, job_id: str) -> bytes | BinaryIO | None:
        content: Content | None = await self._thread.read(partial(self._tables.result, job_id))
        if content is None or content.file is None:
            return content and content.body
        with suppress(FileNotFoundError):  # its retention has ended since
            reader: BinaryIO = await self._with_files(self._files.reader, content.file)
            return reader
        return None

    async def page(
        self, route: str | None, state: State | None, limit: int, cursor: str, path: str | None = None
    ) -> Page:
        found: Page = await self._thread.read(partial(self._tables.page, route, state, limit, cursor, path))
        return found

    async def next_due(self) -> float | None:
        due: float | None = await self._thread.read(self._tables.next_due)
        return due

    def watch(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        return self._watchers.add(callback)

    def lost(self, callback: Callable[[list[tuple[str, int]]], None]) -> Callable[[], None]:
        """It is never called: a lock, not a lease, says which server process is alive."""
        return lambda: None

    def broken(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self._thread.on_broken.add(callback)

    # Schedules, retention, owners

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        return bool(await self._change(self._tables.schedule, name, tick, new))

    async def last_tick(self, name: str) -> float | None:
        tick: float | None = await self._thread.read(partial(self._tables.last_tick, name))
        return tick

    async def sweep(self, now: float) -> int:
        removed = 0
        while number := await self._change(self._tables.sweep, now):
            removed += number
        there = await self._with_files(self._files.names)  # before the rows are read: a new file is not among them
        unused = there - await self._thread.read(self._tables.files)
        await self._with_files(self._files.remove, unused)
        return removed

    async def owners(self) -> set[str]:
        owners: set[str] = await self._thread.read(self._tables.owners)
        return owners

    async def attempts_of(self, owner: str) -> list[Record]:
        records: list[Record] = await self._thread.read(partial(self._tables.attempts_of, owner))
        return records

    async def died(self, owner: str) -> list[str]:
        ids: list[str] = await self._change(self._tables.died, owner)
        return ids

    # Helpers

    async def _change(self, operation: Callable[..., Any], *args: Any) -> Any:
        return await self._thread.change(partial(operation, *args))

    async def _content(self, name: str, value: bytes) -> tuple[Content, str | None]:
        """The content for the row, and the name of the file that was written for it."""
        if len(value) <= INLINE:
            return Content(None, value), None
        file: str = await self._with_files(self._files.write, name, value)
        return Content(file, None), file

    async def _settled(
        self, file: str | None, operation: Callable[..., Any], *args: Any, kept: Callable[[Any], bool] = bool
    ) -> Any:
        """Make a change whose row names `file`. The file is removed if the row does not exist afterwards."""
        if file is None:
            return await self._change(operation, *args)
        change = asyncio.ensure_future(self._change(operation, *args))
        change.add_done_callback(partial(self._settle, file, kept))  # also if the caller is cancelled
        return await asyncio.shield(change)

    def _settle(self, file: str, kept: Callable[[Any], bool], change: asyncio.Future[Any]) -> None:
        if not change.cancelled() and change.exception() is None and kept(change.result()):
            self._files.settle(file)
        else:
            self._in_background(partial(self._files.drop, file))

    async def _with_files(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._file_threads, function, *args)
        except FsyncFailed as error:
            self._thread.break_down(error.message)
            raise
        except StoreError as error:
            self._thread.problem = self._thread.broken or error.message
            raise

    def _in_background(self, function: Callable[[], Any]) -> None:
        with suppress(RuntimeError):  # the store is closed: `sweep` removes the file
            self._file_threads.submit(function)

    def _report(self, changes: list[Change], removed: list[str]) -> None:
        """After a commit, on the event loop."""
        if removed:
            self._in_background(partial(self._files.remove, removed))
        for change in changes:
            self._watchers.call(change)
