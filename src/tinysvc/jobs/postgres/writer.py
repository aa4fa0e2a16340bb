"""Group commit: the changes that wait are committed together, on one connection.

While one transaction commits, further changes collect; they are the next transaction. So a slow disk makes the groups
larger, not the number of waiting transactions. A lost connection is made again, and the group is repeated: each
operation recognizes its own earlier commit. An operation whose time is up fails with a StoreError, also while the
database hangs, and is not repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from ...core.job_errors import JobError, StoreError, StoreFull
from .batch import Answer, Batch, Conflict, Operation, load
from .changes import Changes
from .connection import Again, Link, Lost

TOGETHER = 256
"""Operations of one transaction at most: a larger one would delay the answers of the first ones."""
BYTES_TOGETHER = 8 << 20
"""Bodies, saved values and results of one transaction; one that is larger goes alone."""
TRANSACTION_SECONDS = 10.0
"""A transaction takes milliseconds, and some seconds on a busy disk. After this time the server is taken as hung."""
CLOSE_SECONDS = 5.0
"""Seconds for the operations that wait when the store closes."""
PAUSE = 0.1
"""Seconds between two attempts to reach the database again."""

log = logging.getLogger("tinysvc.jobs")


class _Entry:
    """An operation that waits for its commit."""

    __slots__ = ("answer", "operation", "size", "timer")

    def __init__(self, operation: Operation[Any], size: int, answer: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.size = size
        self.answer = answer
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, value: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.answer.done():
            if isinstance(value, Exception):
                self.answer.set_exception(value)
                self.answer.exception()  # its caller may have been cancelled: asyncio need not report it
            else:
                self.answer.set_result(value)


class Writer:
    """The connection on which one server process writes."""

    def __init__(self, link: Link, owner: str, changes: Changes, report: Callable[[str], None]) -> None:
        self._link = link
        self._owner = owner
        self._changes = changes
        self._report = report
        self.channel = ""
        self._waiting: dict[_Entry, None] = {}  # in the order of arrival
        self._group: list[_Entry] = []
        self._wake = asyncio.Event()
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The server's process behind this connection, as notifications name it."""
        return self._link.pid

    def start(self, channel: str) -> None:
        """Begin to write; `channel` is that of the notifications."""
        self.channel = channel
        self._task = asyncio.get_running_loop().create_task(self._run(), name="durable jobs: writer")

    async def do(self, operation: Operation[Answer], patience: float, size: int = 0) -> Answer:
        """Commit an operation and return its answer. The operation continues if the caller is cancelled.

        Args:
            operation: The change.
            patience: Seconds after which it is given up, because the database does not answer.
            size: Bytes that it writes.

        Raises:
            StoreError: The database does not answer, or refuses.
            JobError: The operation's own error.
        """
        if self._is_closing:
            raise StoreError("The store of durable jobs is closed.")
        loop = asyncio.get_running_loop()
        entry = _Entry(operation, size, loop.create_future())
        entry.timer = loop.call_later(patience, self._give_up, entry)
        self._waiting[entry] = None
        self._wake.set()
        answer: Answer = await asyncio.shield(entry.answer)
        return answer

    def _give_up(self, entry: _Entry) -> None:
        self._waiting.pop(entry, None)
        entry.settle(StoreError("PostgreSQL does not answer in time."))

    async def aclose(self) -> None:
        """Commit the operations that wait, for `CLOSE_SECONDS` at most, and close."""
        self._is_closing = True
        self._wake.set()
        timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._give_up_all)
        if self._task is not None:
            await self._task
        timer.cancel()
        await self._link.aclose()

    def _give_up_all(self) -> None:
        for entry in [*self._group, *self._waiting]:
            self._give_up(entry)
        self._link.drop()

    async def _run(self) -> None:
        while self._waiting or not self._is_closing:
            self._wake.clear()
            if not self._waiting:
                await self._wake.wait()
            group = self._group = self._take()
            await self._write_until_done(group)
            self._group = []

    def _take(self) -> list[_Entry]:
        """The next group, in the order of arrival."""
        group: list[_Entry] = []
        size = singles = 0
        for entry in islice(self._waiting, TOGETHER):
            size += entry.size
            singles += entry.operation.is_single
            if group and (size > BYTES_TOGETHER or singles > 1):
                break
            group.append(entry)
        for entry in group:
            del self._waiting[entry]
        return group

    async def _write_until_done(self, group: list[_Entry]) -> None:
        """Commit a group. Repeat it while the connection is lost and one of its operations has time left."""
        while group := [entry for entry in group if not entry.answer.done() or entry.answer.cancelled()]:
            try:
                await self._write(group)
                return
            except (Again, Conflict):
                continue
            except Lost as error:
                self._report(f"PostgreSQL does not answer: {error}")
                for entry in group:
                    entry.operation.repeated = True
                await asyncio.sleep(PAUSE)
            except Exception as error:
                if len(group) > 1:  # find the operation that fails: the others must not fail with it
                    for entry in group:
                        await self._write_until_done([entry])
                    return
                self._refuse(group[0], error)

    def _refuse(self, entry: _Entry, error: Exception) -> None:
        """Fail one operation, which the database refuses or which has a bug: the others must continue."""
        if isinstance(error, StoreFull):
            self._report(str(error))
        elif not isinstance(error, StoreError):
            log.error("a durable job cannot be written", exc_info=error)
            error = StoreError(f"{type(error).__name__}: {error}")
        entry.settle(error)

    async def _write(self, group: Sequence[_Entry]) -> None:
        async with self._link.session(TRANSACTION_SECONDS) as connection:
            operations = [entry.operation for entry in group]
            batch = await load(connection, operations, self._owner)
            answers = [_applied(operation, batch) for operation in operations]
            await batch.write(connection, self.channel)
            for operation, answer in zip(operations, answers, strict=True):
                if not isinstance(answer, Exception):
                    await operation.done(connection, batch)
            if await connection.execute("COMMIT") != "COMMIT":
                raise Again("the transaction was rolled back")
        self._report("")
        self._changes.report(batch.changes)
        for entry, answer in zip(group, answers, strict=True):
            entry.settle(answer)


def _applied(operation: Operation[Any], batch: Batch) -> Any:
    """The answer of an operation, or the error that its caller gets. The batch is unchanged then."""
    try:
        return operation.apply(batch)
    except JobError as error:
        return error
