"""The changes that the PostgreSQL store makes: each loads its rows, and decides by states.py.

An operation may be repeated after a lost connection (`repeated`): it then finds its own earlier commit by id and
attempt.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import states
from ..records import CancelOutcome, Claimed, NewJob, Record, State, Submitted
from ..states import Refusal
from .batch import COLUMNS, Batch, Operation

WAKE_TOGETHER = 2000
"""Scheduled durable jobs that one claim makes queued. Priorities hold exactly among so many that are due at once."""
SWEEP_TOGETHER = 500
"""Rows that one transaction of a sweep removes: other transactions wait for it."""
LAPSE_TOGETHER = 1000
"""Attempts that one transaction ends when their server process is dead."""

_STARTABLE = f"""WITH due AS MATERIALIZED (
        SELECT {COLUMNS} FROM tinysvc_jobs WHERE state = 'scheduled' AND due <= $1
        ORDER BY due LIMIT {WAKE_TOGETHER} FOR UPDATE SKIP LOCKED
    ), queued AS MATERIALIZED (
        SELECT found.* FROM unnest($2::text[], $3::bigint[]) AS asked (route, number) CROSS JOIN LATERAL (
            SELECT {COLUMNS}, request, body FROM tinysvc_jobs AS jobs
            WHERE jobs.route = asked.route AND jobs.state = 'queued'
            ORDER BY priority DESC, due, seq LIMIT asked.number FOR UPDATE SKIP LOCKED
        ) AS found
    ), lease AS MATERIALIZED (
        SELECT lease_end > clock_timestamp() AS alive FROM tinysvc_job_servers
        WHERE owner = $4 AND EXISTS (SELECT 1 FROM due UNION ALL SELECT 1 FROM queued) FOR KEY SHARE
    )
    SELECT {COLUMNS}, request, body, (SELECT alive FROM lease) AS alive FROM queued
    UNION ALL SELECT {COLUMNS}, NULL, NULL, (SELECT alive FROM lease) FROM due"""
"""The durable jobs that may start, locked. If there is one, the lease is locked until the commit, too: a server process
without a lease must not start attempts."""
_OWNED = f"SELECT {COLUMNS} FROM tinysvc_jobs WHERE owner = $1 AND owner <> '' FOR UPDATE"
_SOME_OWNED = f"{_OWNED.removesuffix('FOR UPDATE')} LIMIT {LAPSE_TOGETHER} FOR UPDATE SKIP LOCKED"
_REQUESTS = """SELECT jobs.id, jobs.request, jobs.body, saved.content FROM tinysvc_jobs AS jobs
    LEFT JOIN tinysvc_job_contents AS saved ON saved.id = jobs.id AND saved.kind = 'saved'
    WHERE jobs.id = ANY($1::text[])"""
_LOCK_LEASE = "SELECT lease_end < clock_timestamp() FROM tinysvc_job_servers WHERE owner = $1 FOR UPDATE"
_END_LEASE = """DELETE FROM tinysvc_job_servers WHERE owner = $1
    AND NOT EXISTS (SELECT FROM tinysvc_jobs WHERE owner = $1 AND owner <> '')"""
_BEGIN_LEASE = """INSERT INTO tinysvc_job_servers VALUES ($1, clock_timestamp() + make_interval(secs => $2))
    ON CONFLICT (owner) DO UPDATE SET lease_end = excluded.lease_end"""
_RETENTION_OVER = f"""SELECT {COLUMNS} FROM tinysvc_jobs
    WHERE expires IS NOT NULL AND expires <= $1 AND owner = '' AND NOT expired
    ORDER BY expires LIMIT {SWEEP_TOGETHER} FOR UPDATE SKIP LOCKED"""
_LONG_EXPIRED = f"""SELECT {COLUMNS} FROM tinysvc_jobs WHERE expires IS NOT NULL AND expires <= $1 AND expired
    ORDER BY expires LIMIT {SWEEP_TOGETHER} FOR UPDATE SKIP LOCKED"""
_NAME_TICK = "INSERT INTO tinysvc_job_ticks VALUES ($1, '-Infinity') ON CONFLICT (name) DO NOTHING"
_LOCK_TICK = "SELECT tick FROM tinysvc_job_ticks WHERE name = $1 FOR UPDATE"
_SET_TICK = "UPDATE tinysvc_job_ticks SET tick = $2 WHERE name = $1"


class Accept(Operation[Submitted]):
    """Accept a durable job."""

    def __init__(self, new: NewJob) -> None:
        self._new = new
        self._id = secrets.token_hex(16)  # here, so that a repetition has the same
        self.key = (new.route, new.key) if new.key else None
        self.limited = new.route if new.max_waiting is not None else ""

    @property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        """Its row can be there only if an earlier commit has taken place."""
        return (self._id,) if self.repeated else ()

    def apply(self, batch: Batch) -> Submitted:
        new = self._new
        if self._id in batch.records:
            return Submitted(batch.records[self._id], True)
        same_key = batch.keys.get(self.key) if self.key is not None else None
        if (earlier := states.repeated_by(new, same_key, batch.waiting.get(new.route, 0))) is not None:
            return Submitted(batch.records.get(earlier.id, earlier), False)
        record = states.accepted(new, self._id, batch.now)
        batch.add(record, new.request, new.body)
        return Submitted(record, True)


class AttemptWrite(Operation[bool]):
    """A write of a running attempt. The answer is False if this server process does not run it."""

    def __init__(
        self,
        job_id: str,
        number: int,
        change: Callable[[Record, float], Record | Refusal],
        *,
        cause: str = "",
        content: tuple[str, bytes] | None = None,
    ) -> None:
        self.ids = (job_id,)
        self._number = number
        self._change = change
        self._cause = cause
        self._content = content

    def apply(self, batch: Batch) -> bool:
        record = batch.records.get(self.ids[0])
        if record is None:
            return False
        if record.owner != batch.owner:
            return self.repeated and self._is_there(record)
        new = self._change(record, batch.now)
        if isinstance(new, Refusal):
            return self.repeated and self._is_there(record)
        batch.keep(new)
        if self._content is not None:
            batch.keep_content(record.id, *self._content)
        return True

    def _is_there(self, record: Record) -> bool:
        """Whether an earlier commit of this operation has ended the attempt."""
        return any(each.number == self._number and each.cause == self._cause != "" for each in record.attempts)


class Stopped(Operation[bool]):
    """The worker of a cancelled attempt is dead."""

    def __init__(self, job_id: str, number: int) -> None:
        self.ids = (job_id,)
        self._number = number

    def apply(self, batch: Batch) -> bool:
        record = batch.records.get(self.ids[0])
        if record is None or record.owner != batch.owner:
            is_there = record is not None and (record.state, record.attempt) == (State.CANCELLED, self._number)
            return self.repeated and is_there
        new = states.stopped(record, self._number)
        if isinstance(new, Refusal):
            return False
        batch.keep(new)
        return True


class Cancel(Operation[CancelOutcome]):
    """Cancel a durable job."""

    def __init__(self, job_id: str) -> None:
        self.ids = (job_id,)

    def apply(self, batch: Batch) -> CancelOutcome:
        record = batch.records.get(self.ids[0])
        if record is None or record.expired:
            return CancelOutcome("unknown")
        new = states.cancel(record, batch.now)
        if isinstance(new, Record):
            batch.keep(new)
        elif self.repeated and record.state == State.CANCELLED:
            new = record
        return states.cancel_outcome(record, new)


class Retry(Operation[Record | Refusal | None]):
    """Start a failed durable job again."""

    def __init__(self, job_id: str) -> None:
        self.ids = (job_id,)

    def apply(self, batch: Batch) -> Record | Refusal | None:
        record = batch.records.get(self.ids[0])
        if record is None or record.expired:
            return None
        new = states.retry(record, batch.now)
        if isinstance(new, Record):
            batch.keep(new)
        elif self.repeated and record.state in (State.QUEUED, State.RUNNING):
            return record
        return new


class Claim(Operation[list[Claimed]]):
    """Start attempts here. A repetition also answers with the attempts that an earlier commit of it has started."""

    is_single = True

    def __init__(self, capacity: Mapping[str, int], total: int, known: Mapping[str, int]) -> None:
        self._capacity = {route: min(number, total) for route, number in capacity.items() if number > 0}
        self._total = total
        self._known = known
        """The attempts that this process runs, by id."""
        self._lost: list[Record] = []
        self._requests: dict[str, tuple[bytes, bytes]] = {}
        self.answer: list[Claimed] = []

    async def load(self, connection: Any, batch: Batch) -> None:
        self._lost = []
        if not batch.is_alive:
            return
        if self.repeated:
            rows = batch.found(await connection.fetch(_OWNED, batch.owner))
            self._lost = [each for each in rows if each.state == State.RUNNING and each.id not in self._known]
        routes, numbers = list(self._capacity), list(self._capacity.values())
        rows = await connection.fetch(_STARTABLE, batch.now, routes, numbers, batch.owner)
        if rows:
            batch.is_alive = bool(rows[0]["alive"])
            batch.found(rows)
            self._requests = {row["id"]: (row["request"], row["body"]) for row in rows if row["body"] is not None}

    def apply(self, batch: Batch) -> list[Claimed]:
        self.answer = []
        if not batch.is_alive:
            return self.answer
        for record in list(batch.records.values()):
            if isinstance(new := states.wake(record, batch.now), Record):
                batch.keep(new)
        left = dict(self._capacity)
        chosen = self._lost[:]
        queued = [each for each in batch.records.values() if each.state == State.QUEUED and each.id in batch.places]
        for record in sorted(queued, key=lambda each: (-each.priority, each.due, batch.places[each.id])):
            if left.get(record.route, 0) > 0 and len(chosen) < self._total:
                left[record.route] -= 1
                new = states.claim(record, batch.owner, batch.now)
                assert isinstance(new, Record)
                chosen.append(batch.keep(new))
        self.answer.extend(Claimed(record, *self._requests.get(record.id, (b"", b"")), None) for record in chosen)
        return self.answer

    async def done(self, connection: Any, batch: Batch) -> None:
        """Read the saved values, and the requests of those that were scheduled."""
        ids = [each.record.id for each in self.answer if each.record.has_saved or each.record.id not in self._requests]
        if ids:
            rows = await connection.fetch(_REQUESTS, ids)
            contents = {row["id"]: (row["request"], row["body"], row["content"]) for row in rows}
            self.answer[:] = [
                Claimed(each.record, *contents[each.record.id]) if each.record.id in contents else each
                for each in self.answer
            ]


class Lapse(Operation[int]):
    """End the attempts of another server process, if its lease is over. The answer is how many."""

    cause = "server-died"

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._rows: list[Record] = []
        self._applies = False

    async def load(self, connection: Any, batch: Batch) -> None:
        self._rows = []
        is_over = await connection.fetchval(_LOCK_LEASE, self._owner)
        self._applies = is_over is not False
        if self._applies:
            self._rows = batch.found(await connection.fetch(_SOME_OWNED, self._owner))

    def apply(self, batch: Batch) -> int:
        number = 0
        for record in self._rows:
            new = states.lapse(batch.records[record.id], batch.now, self.cause)
            if isinstance(new, Record) and batch.records[record.id].owner == self._owner:
                batch.keep(new)
                number += 1
        return number

    async def done(self, connection: Any, batch: Batch) -> None:
        """Remove the server process, unless a row of it was locked by another transaction."""
        if self._applies:
            await connection.execute(_END_LEASE, self._owner)


class Register(Lapse):
    """Begin a lease of this server process. All attempts of an earlier lease end."""

    cause = "lease-lost"

    def __init__(self, owner: str, seconds: float) -> None:
        super().__init__(owner)
        self._seconds = seconds

    async def load(self, connection: Any, batch: Batch) -> None:
        self._rows = batch.found(await connection.fetch(_OWNED, self._owner))

    async def done(self, connection: Any, batch: Batch) -> None:
        await connection.execute(_BEGIN_LEASE, self._owner, self._seconds)


class Leave(Operation[int]):
    """This server process ends in good order, with its workers: its attempts are released, and do not count."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._rows: list[Record] = []

    async def load(self, connection: Any, batch: Batch) -> None:
        self._rows = batch.found(await connection.fetch(_OWNED, self._owner))

    def apply(self, batch: Batch) -> int:
        for row in self._rows:
            record = batch.records[row.id]
            new = states.release(record, record.attempt, "shutdown", batch.now)
            if isinstance(new, Refusal):
                new = states.stopped(record, record.attempt)
            if isinstance(new, Record):
                batch.keep(new)
        return len(self._rows)

    async def done(self, connection: Any, batch: Batch) -> None:
        await connection.execute(_END_LEASE, self._owner)


class Sweep(Operation[tuple[int, bool]]):
    """Remove some of those whose retention is over. The answer is how many, and whether there may be more."""

    is_single = True

    def __init__(self, now: float) -> None:
        self._now = now
        self._rows: list[Record] = []

    async def load(self, connection: Any, batch: Batch) -> None:
        over = await connection.fetch(_RETENTION_OVER, self._now)
        expired = await connection.fetch(_LONG_EXPIRED, self._now - states.KEEP_EXPIRED)
        self._rows = batch.found(over) + batch.found(expired)

    def apply(self, batch: Batch) -> tuple[int, bool]:
        number = 0
        for row in self._rows:
            record = batch.records[row.id]
            if record.expired and states.forgotten_at(record) <= self._now:
                batch.delete(record)
            elif isinstance(new := states.expire(record, self._now), Record):
                batch.keep(new)
                number += 1
        return number, len(self._rows) >= SWEEP_TOGETHER


class Tick(Operation[bool]):
    """Accept the durable job of one tick of a schedule, unless this or a later one was accepted before."""

    is_single = True

    def __init__(self, name: str, tick: float, new: NewJob | None) -> None:
        self._name = name
        self._tick = tick
        self._accept = Accept(new) if new is not None else None
        if self._accept is not None:
            self.key = self._accept.key
            self.limited = self._accept.limited
        self._newest = float("-inf")
        self._sets = False

    @property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        if self._accept is None:
            return ()
        self._accept.repeated = self.repeated
        return self._accept.ids

    async def load(self, connection: Any, batch: Batch) -> None:
        await connection.execute(_NAME_TICK, self._name)
        self._newest = await connection.fetchval(_LOCK_TICK, self._name)

    def apply(self, batch: Batch) -> bool:
        if self.repeated and any(job_id in batch.records for job_id in self.ids):
            return True
        if self._accept is None:  # remember the time from which ticks count
            self._sets = self._newest == float("-inf")
            return False
        self._sets = self._tick > self._newest
        if self._sets:
            self._accept.apply(batch)
        return self._sets

    async def done(self, connection: Any, batch: Batch) -> None:
        if self._sets:
            await connection.execute(_SET_TICK, self._name, self._tick)
