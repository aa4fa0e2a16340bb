"""The durable jobs in the tables of SQLite. Everything here runs in the thread of thread.py.

A record is one JSON text, with the columns that the indexes need beside it; states.py computes the next record.

*Counts* of the jobs in each state are kept in memory. This process alone writes, and counting 100,000 rows for each
page would take longer than all else. *Progress* is kept in memory, too, and written with the next change: it must not
cost an fsync of its own.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...core.errors import ConfigurationError
from .. import states
from ..records import (
    WAITING,
    CancelOutcome,
    Change,
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
from .database_file import connect, not_opened
from .pages import Filter, decode, insert_rows, read_page
from .thread import LOCK_WAIT

SWEPT = 500
"""Durable jobs that one transaction of the retention removes: others must not wait for thousands of them."""
WOKEN = 1000
"""Scheduled jobs that one claim makes ready: more of them wait for the next claim."""

_encode = msgspec.json.Encoder().encode
CONTENTS = ("requests", "saved", "results")
DELETE = {table: f"DELETE FROM {table} WHERE seq = ?" for table in CONTENTS}  # noqa: S608
FILE = {table: f"SELECT file FROM {table} WHERE seq = ? AND file IS NOT NULL" for table in CONTENTS}  # noqa: S608
FILES = " UNION ALL ".join(f"SELECT file FROM {table} WHERE file IS NOT NULL" for table in CONTENTS)  # noqa: S608


class Content(NamedTuple):
    """Bytes in a row, or the name of a file."""

    file: str | None
    body: bytes | None


class Claim(NamedTuple):
    """A started attempt, with its request and its saved value."""

    record: Record
    request: bytes
    body: Content
    saved: Content | None


class FileReplaced(sqlite3.DatabaseError):
    """The path names another file than the one that is open, or none."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB
    sqlite_errorname = "SQLITE_NOTADB"


class Tables:
    """The tables of one store.

    Args:
        path: The file.
        owner: The server process that opens it.
        service: The service that the durable jobs belong to. Empty: any (command line).
        report: Gets the committed changes, and the files that have lost their row; called on the event loop.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self,
        path: Path,
        owner: str,
        service: str,
        report: Callable[[list[Change], list[str]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._path = path
        self._owner = owner
        self._service = service
        self._report = report
        self._db: sqlite3.Connection = None  # type: ignore[assignment]  # set by connect, in the thread
        self._file = (0, 0)  # device and inode
        self._next = 1
        self._counts: Counter[tuple[str, State]] = Counter()
        self._in_transaction = False
        self._progress: dict[str, tuple[int, Record]] = {}
        self._new_rows: list[tuple[Any, ...]] = []
        self._new_requests: list[tuple[Any, ...]] = []
        self._delta: Counter[tuple[str, State]] = Counter()
        self._changes: list[Change] = []
        self._unused: list[str] = []
        self._reported: list[Change] = []
        self._removed: list[str] = []

    # The thread's side: transactions

    def connect(self) -> sqlite3.Connection:
        self._db = connect(self._path, LOCK_WAIT)
        try:
            self._file = self._file_there()
            self._check_service()
            self._next = (self._db.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0) + 1
            for route, state, number in self._db.execute(
                "SELECT route, state, count(*) FROM jobs GROUP BY route, state"
            ):
                self._counts[route, State(state)] = number
        except sqlite3.Error as error:
            self._db.close()
            raise not_opened(self._path, error) from error
        except BaseException:
            self._db.close()
            raise
        return self._db

    def _check_service(self) -> None:
        if not self._service:
            return
        found = self._db.execute("SELECT value FROM meta WHERE name = 'service'").fetchone()
        if found is None:
            self._db.execute("INSERT INTO meta VALUES ('service', ?)", (self._service,))
        elif found[0] != self._service:
            raise ConfigurationError(
                f"The store {self._path} has the durable jobs of the service {found[0]!r}, not of {self._service!r}. "
                "Name another file in the setting `jobs`. If the service was renamed, set the row 'service' of the "
                f"table 'meta' to {self._service!r}."
            )

    def _file_there(self) -> tuple[int, int]:
        """The file that the path names now."""
        try:
            about = os.stat(self._path)
        except FileNotFoundError:
            return 0, 0
        return about.st_dev, about.st_ino

    def begin(self) -> None:
        if self._file_there() != self._file:  # SQLite would accept jobs that no server ever finds again
            raise FileReplaced("the file was removed or replaced while it was open")
        self._in_transaction = True
        if self._progress:
            rows = [(_encode(record).decode(), seq) for seq, record in self._progress.values()]
            self._db.executemany("UPDATE jobs SET record = ? WHERE seq = ?", rows)

    def finish(self) -> None:
        """Write the rows of new durable jobs, all at once: each call of SQLite releases the GIL."""
        if self._new_rows:
            insert_rows(self._db, "jobs", self._new_rows)
            insert_rows(self._db, "requests", self._new_requests)
            self._new_rows.clear()
            self._new_requests.clear()

    def committed(self) -> None:
        self._in_transaction = False
        self._progress.clear()
        self._counts.update(self._delta)
        self._reported += self._changes
        self._removed += self._unused
        self._forget()

    def rolled_back(self) -> None:
        self._in_transaction = False
        self._forget()

    def _forget(self) -> None:
        for each in (self._new_rows, self._new_requests, self._changes, self._unused):
            each.clear()
        self._delta.clear()

    def unwritten(self) -> bool:
        return bool(self._progress)

    def report(self) -> Callable[[], None] | None:
        if not self._reported and not self._removed:
            return None
        changes, removed = self._reported, self._removed
        self._reported, self._removed = [], []
        return lambda: self._report(changes, removed)

    # Records

    def _load(self, job_id: str) -> tuple[int, Record] | None:
        if not self._in_transaction and job_id in self._progress:
            return self._progress[job_id]
        self.finish()
        found = self._db.execute("SELECT seq, record FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return (found[0], decode(found[1])) if found else None

    def _store(self, seq: int, old: Record, new: Record) -> None:
        self._db.execute(
            "UPDATE jobs SET state = ?, due = ?, expires = ?, owner = ?, record = ? WHERE seq = ?",
            (new.state, new.due, new.expires, new.owner or None, _encode(new).decode(), seq),
        )
        if old.has_saved and not new.has_saved:
            self._drop("saved", seq)
        self._note(old, new)

    def _note(self, old: Record | None, new: Record) -> None:
        """Count the change, and report it after the commit."""
        if old is None or old.state != new.state:
            self._delta[new.route, new.state] += 1
            if old is not None:
                self._delta[old.route, old.state] -= 1
        self._changes.append(Change(new.id, new.route, new.state, new.version))

    def _drop(self, table: str, seq: int) -> None:
        """Remove content, and its file after the commit."""
        self._unused += [file for (file,) in self._db.execute(FILE[table], (seq,))]
        self._db.execute(DELETE[table], (seq,))

    def _write(self, job_id: str, change: Callable[[Record], Record | Refusal]) -> int | None:
        """Apply a transition. Returns the row, or None if it was refused."""
        found = self._load(job_id)
        if found is None:
            return None
        seq, old = found
        new = change(old)
        if isinstance(new, Refusal):
            return None
        self._store(seq, old, new)
        return seq

    # The operations of the store

    def submit(self, new: NewJob, file: str | None) -> Submitted:
        waiting = sum(self._counts[new.route, each] + self._delta[new.route, each] for each in WAITING)
        if (earlier := states.repeated_by(new, self._with_key(new), waiting)) is not None:
            return Submitted(earlier, False)
        record = states.accepted(new, secrets.token_hex(16), self.clock())
        seq, self._next = self._next, self._next + 1
        path = None if record.path == record.route else record.path
        columns = (record.id, record.route, path, record.state, record.priority, record.due, record.key or None)
        self._new_rows.append((seq, *columns, None, None, _encode(record).decode()))
        self._new_requests.append((seq, file, None if file else new.body, new.request))
        self._note(None, record)
        return Submitted(record, True)

    def _with_key(self, new: NewJob) -> Record | None:
        """The durable job of the route with the same Idempotency-Key."""
        if not new.key:
            return None
        self.finish()
        found = self._db.execute("SELECT record FROM jobs WHERE route = ? AND key = ?", (new.route, new.key)).fetchone()
        return decode(found[0]) if found else None

    def get(self, job_id: str) -> Record | None:
        found = self._load(job_id)
        if found:
            return found[1]
        expired = self._db.execute("SELECT record FROM expired WHERE id = ?", (job_id,)).fetchone()
        return decode(expired[0]) if expired else None

    def result(self, job_id: str) -> Content | None:
        found = self._db.execute(
            "SELECT results.file, results.body FROM jobs JOIN results USING (seq) WHERE id = ?", (job_id,)
        ).fetchone()
        return Content(*found) if found else None

    def claim(self, capacity: Mapping[str, int], total: int, owner: str) -> list[Claim]:
        now = self.clock()
        self._wake(now)
        ready: list[tuple[int, float, int, str]] = []
        for route, number in capacity.items():
            if number > 0 and total > 0 and self._counts[route, State.QUEUED] + self._delta[route, State.QUEUED] > 0:
                ready += self._db.execute(
                    "SELECT -priority, due, seq, record FROM jobs WHERE route = ? AND state = 'queued' "
                    "ORDER BY priority DESC, due, seq LIMIT ?",
                    (route, min(number, total)),
                )
        claimed = []
        for _, _, seq, text in sorted(ready)[:total]:
            old = decode(text)
            new = states.claim(old, owner or self._owner, now)
            assert isinstance(new, Record)
            self._store(seq, old, new)
            file, body, request = self._db.execute(
                "SELECT file, body, request FROM requests WHERE seq = ?", (seq,)
            ).fetchone()
            saved = None
            if new.has_saved:
                saved = Content(*self._db.execute("SELECT file, body FROM saved WHERE seq = ?", (seq,)).fetchone())
            claimed.append(Claim(new, request, Content(file, body), saved))
        return claimed

    def _wake(self, now: float) -> None:
        self.finish()
        due = self._db.execute(
            "SELECT seq, record FROM jobs WHERE state = 'scheduled' AND due <= ? ORDER BY due LIMIT ?", (now, WOKEN)
        ).fetchall()
        for seq, text in due:
            old = decode(text)
            new = states.wake(old, now)
            assert isinstance(new, Record)
            self._store(seq, old, new)

    def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        """Runs between two transactions."""
        found = self._load(job_id)
        new = states.progress(found[1], attempt, value) if found else states.STALE
        if found is None or isinstance(new, Refusal):
            return False
        self._progress[job_id] = found[0], new
        self._reported.append(Change(new.id, new.route, new.state, new.version))
        return True

    def save(self, job_id: str, attempt: int, value: Content) -> bool:
        seq = self._write(job_id, lambda record: states.save(record, attempt))
        if seq is not None:
            self._drop("saved", seq)
            self._db.execute("INSERT INTO saved VALUES (?, ?, ?)", (seq, *value))
        return seq is not None

    def finish_attempt(self, job_id: str, attempt: int, head: ResultHead, body: Content) -> bool:
        seq = self._write(job_id, lambda record: states.finish(record, attempt, head, self.clock()))
        if seq is not None:
            self._db.execute("INSERT INTO results VALUES (?, ?, ?)", (seq, *body))
        return seq is not None

    def fail(self, job_id: str, attempt: int, failure: Failure) -> bool:
        return self._write(job_id, lambda record: states.fail(record, attempt, failure, self.clock())) is not None

    def release(self, job_id: str, attempt: int, cause: str) -> bool:
        return self._write(job_id, lambda record: states.release(record, attempt, cause, self.clock())) is not None

    def stopped(self, job_id: str, attempt: int) -> bool:
        return self._write(job_id, lambda record: states.stopped(record, attempt)) is not None

    def cancel(self, job_id: str) -> CancelOutcome:
        found = self._load(job_id)
        if found is None:
            return CancelOutcome("unknown")
        seq, old = found
        new = states.cancel(old, self.clock())
        if isinstance(new, Record):
            self._store(seq, old, new)
        return states.cancel_outcome(old, new)

    def retry(self, job_id: str) -> Record | Refusal | None:
        found = self._load(job_id)
        if found is None:
            return None
        new = states.retry(found[1], self.clock())
        if isinstance(new, Record):
            self._store(*found, new)
        return new

    def next_due(self) -> float | None:
        found = self._db.execute("SELECT min(due) FROM jobs WHERE state = 'scheduled'").fetchone()[0]
        return None if found is None else float(found)

    def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        newest = self.last_tick(name)
        if new is None:
            self._db.execute("INSERT OR IGNORE INTO ticks VALUES (?, ?)", (name, tick))
            return False
        if newest is not None and tick <= newest:
            return False
        accepted = self.submit(new, None)
        self._db.execute("INSERT OR REPLACE INTO ticks VALUES (?, ?)", (name, tick))
        return accepted.is_new

    def last_tick(self, name: str) -> float | None:
        found = self._db.execute("SELECT tick FROM ticks WHERE name = ?", (name,)).fetchone()
        return float(found[0]) if found else None

    def page(self, route: str | None, state: State | None, limit: int, cursor: str, path: str | None) -> Page:
        page = read_page(self._db, self._counts, Filter(route, state, path), limit, cursor)
        return Page([self._newest(record) for record in page.records], page.next, page.counts)

    def _newest(self, record: Record) -> Record:
        """The record with progress that is not written yet."""
        return self._progress[record.id][1] if record.id in self._progress else record

    # Owners

    def owners(self) -> set[str]:
        return {owner for (owner,) in self._db.execute("SELECT DISTINCT owner FROM jobs WHERE owner IS NOT NULL")}

    def attempts_of(self, owner: str) -> list[Record]:
        rows = self._db.execute("SELECT record FROM jobs WHERE owner = ? ORDER BY seq", (owner,)).fetchall()
        return [self._newest(decode(text)) for (text,) in rows]

    def died(self, owner: str) -> list[str]:
        now = self.clock()
        mine = self.attempts_of(owner)
        for record in mine:
            self._write(record.id, lambda each: states.lapse(each, now))
        return [record.id for record in mine]

    # Retention

    def sweep(self, now: float) -> int:
        """Remove the content of some durable jobs whose retention is over. Returns their number; 0 after the last."""
        rows = self._db.execute(
            "SELECT seq, record FROM jobs WHERE expires <= ? AND owner IS NULL LIMIT ?", (now, SWEPT)
        ).fetchall()
        for seq, text in rows:
            old = decode(text)
            new = states.expire(old, now)
            assert isinstance(new, Record)
            for table in CONTENTS:
                self._drop(table, seq)
            self._db.execute("DELETE FROM jobs WHERE seq = ?", (seq,))
            until = states.forgotten_at(new)
            self._db.execute("INSERT INTO expired VALUES (?, ?, ?)", (new.id, until, _encode(new).decode()))
            self._delta[old.route, old.state] -= 1
            self._changes.append(Change(new.id, new.route, new.state, new.version))
        self._db.execute("DELETE FROM expired WHERE until <= ?", (now,))
        return len(rows)

    def files(self) -> set[str]:
        """The files that rows name."""
        return {file for (file,) in self._db.execute(FILES)}
