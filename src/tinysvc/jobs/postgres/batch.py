"""One transaction of the PostgreSQL store: many changes, one commit.

    load     the rows that the changes name, locked; the clock of the database
    decide   each change calls states.py, in the order of arrival; no I/O
    write    all new and changed rows, in as few statements as there are tables
    commit   with fsync; then the answers go out, and the watchers are called

A change that is repeated after a lost connection finds its earlier commit by id and attempt, and answers as that one
would have. The rows are locked in the order of their ids: so two servers do not wait for each other in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ..records import WAITING, Change, Record
from .changes import payloads
from .schema import COUNT_SLOTS

decode = msgspec.msgpack.Decoder(Record).decode
"""A record from the column `record`."""
_encode = msgspec.msgpack.Encoder().encode

NOW = "extract(epoch FROM clock_timestamp())::double precision"
"""The clock of the database as Unix time: all servers have this one in common."""

COLUMNS = "id, seq, record"
"""The columns that `Batch.found` reads."""

_FIRST = f"""WITH locked AS MATERIALIZED (
        SELECT {COLUMNS} FROM tinysvc_jobs WHERE id = ANY($2::text[]) ORDER BY id FOR UPDATE
    )
    SELECT {NOW} AS now,
    (SELECT lease_end > clock_timestamp() FROM tinysvc_job_servers WHERE owner = $1) AS alive, {COLUMNS}
    FROM (SELECT 1) AS one LEFT JOIN locked ON true"""
_BY_KEYS = """SELECT record, asked.route, asked.key FROM unnest($1::text[], $2::text[]) AS asked (route, key)
    JOIN tinysvc_jobs AS jobs ON jobs.route = asked.route AND jobs.key = asked.key AND jobs.key <> ''"""
_LOCK_ROUTES = "SELECT pg_advisory_xact_lock(1953460846, hashtext(route)) FROM unnest($1::text[]) AS asked (route)"
_COUNT_WAITING = """SELECT asked.route, coalesce(sum(number), 0)::bigint AS number
    FROM unnest($1::text[]) AS asked (route) LEFT JOIN tinysvc_job_counts AS counts
    ON counts.route = asked.route AND counts.state IN ('queued', 'scheduled') GROUP BY asked.route"""
_WRITE = """WITH added AS (
        INSERT INTO tinysvc_jobs
        (id, route, path, state, priority, due, key, owner, expires, expired, record, request, body)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::double precision[],
        $7::text[], $8::text[], $9::double precision[], $10::boolean[], $11::bytea[], $12::bytea[], $13::bytea[])
        ON CONFLICT DO NOTHING RETURNING 1
    ), changed AS (
        UPDATE tinysvc_jobs AS jobs SET state = new.state, priority = new.priority, due = new.due, key = new.key,
        owner = new.owner, expires = new.expires, expired = new.expired, record = new.record
        FROM unnest($14::text[], $15::text[], $16::integer[], $17::double precision[], $18::text[], $19::text[],
        $20::double precision[], $21::boolean[], $22::bytea[])
        AS new (id, state, priority, due, key, owner, expires, expired, record) WHERE jobs.id = new.id
    ), kept AS (
        INSERT INTO tinysvc_job_contents SELECT * FROM unnest($23::text[], $24::text[], $25::bytea[])
        ON CONFLICT (id, kind) DO UPDATE SET content = excluded.content
    ), counted AS (
        INSERT INTO tinysvc_job_counts AS counts SELECT $26, * FROM unnest($27::text[], $28::text[], $29::bigint[])
        ON CONFLICT (slot, route, state) DO UPDATE SET number = counts.number + excluded.number
    )
    SELECT (SELECT count(*) FROM added) AS added, count(pg_notify($30, payload))
    FROM unnest($31::text[]) AS notes (payload)"""
"""All in one statement: each statement costs a round trip, and so a start of an attempt its share of 15 ms."""
_DROP_SAVED = "DELETE FROM tinysvc_job_contents WHERE kind = 'saved' AND id = ANY($1::text[])"
_DROP_CONTENTS = "DELETE FROM tinysvc_job_contents WHERE id = ANY($1::text[])"
_EMPTY = "UPDATE tinysvc_jobs SET request = '', body = '' WHERE id = ANY($1::text[])"
_DELETE = "DELETE FROM tinysvc_jobs WHERE id = ANY($1::text[])"

Answer = TypeVar("Answer")


class Conflict(Exception):
    """Another server accepted a durable job with the same key at the same moment: repeat the batch."""


class Operation(Generic[Answer]):
    """One change. Only `load` and `done` may wait for the database; `apply` decides."""

    ids: Sequence[str] = ()
    """The durable jobs that it names: their rows are locked."""
    key: tuple[str, str] | None = None
    """Route and Idempotency-Key of a durable job that it may find."""
    limited = ""
    """The route whose waiting durable jobs must be counted."""
    is_single = False
    """A transaction has at most one such operation: it would find the same rows as the other one."""
    repeated = False
    """An earlier commit of it may have taken place."""

    async def load(self, connection: Any, batch: Batch) -> None:
        """Lock further rows, and add them with `batch.found`."""

    def apply(self, batch: Batch) -> Answer:
        """Decide; change the batch; return the answer, or raise the error of the caller."""
        raise NotImplementedError

    async def done(self, connection: Any, batch: Batch) -> None:
        """Write or read further tables, before the commit."""


class Batch:
    """The rows that one transaction has read, and those that it will write."""

    def __init__(self, now: float, owner: str, is_alive: bool) -> None:
        self.now = now
        self.owner = owner
        self.is_alive = is_alive
        """The lease of this server process has not ended. Only Claim relies on it, and locks the lease."""
        self.records: dict[str, Record] = {}
        self.places: dict[str, int] = {}
        self.keys: dict[tuple[str, str], Record] = {}
        """Durable jobs by route and Idempotency-Key. They are not locked: only their digest and id are used."""
        self.waiting: dict[str, int] = {}
        self.changes: list[Change] = []
        self._old: dict[str, Record] = {}
        self._new: dict[str, tuple[bytes, bytes]] = {}
        self._contents: dict[tuple[str, str], bytes] = {}
        self._dropped: set[str] = set()
        self._expired: set[str] = set()
        self._deleted: set[str] = set()
        self._counts: Counter[tuple[str, str]] = Counter()

    def found(self, rows: Iterable[Any]) -> list[Record]:
        """Add the locked rows of a statement that selects COLUMNS. A row that is here already keeps its changes."""
        there = []
        for row in rows:
            job_id = row["id"]
            if job_id not in self.records:
                self.records[job_id] = self._old[job_id] = decode(row["record"])
                self.places[job_id] = row["seq"]
            there.append(self.records[job_id])
        return there

    def add(self, record: Record, request: bytes, body: bytes) -> None:
        """Accept a new durable job."""
        self._new[record.id] = request, body
        if record.key:
            self.keys[record.route, record.key] = record
        self.keep(record)

    def keep(self, record: Record) -> Record:
        """Write this record in place of the one that was read."""
        old = self.records.get(record.id)
        if old is not None:
            self._count(old, -1)
        self._count(record, 1)
        if record.expired:
            self._expired.add(record.id)
        elif old is not None and old.has_saved and not record.has_saved:
            self._dropped.add(record.id)
            self._contents.pop((record.id, "saved"), None)
        self.records[record.id] = record
        self.changes.append(Change(record.id, record.route, record.state, record.version))
        return record

    def keep_content(self, job_id: str, kind: str, content: bytes) -> None:
        """Write a saved value or a result."""
        self._contents[job_id, kind] = content

    def delete(self, record: Record) -> None:
        """Forget a durable job."""
        self._deleted.add(record.id)
        del self.records[record.id]

    def _count(self, record: Record, step: int) -> None:
        if not record.expired:
            self._counts[record.route, record.state.value] += step
            if record.state in WAITING and record.route in self.waiting:
                self.waiting[record.route] += step

    async def write(self, connection: Any, channel: str) -> None:
        """Write all changes, without the commit. Raises Conflict."""
        if self._dropped:
            await connection.execute(_DROP_SAVED, list(self._dropped))
        if self._expired or self._deleted:
            await connection.execute(_DROP_CONTENTS, [*self._expired, *self._deleted])
            await connection.execute(_EMPTY, list(self._expired))
            await connection.execute(_DELETE, list(self._deleted))
        changed = [record for job_id, record in self.records.items() if record is not self._old.get(job_id)]
        new = [each for each in changed if each.id in self._new]  # in the order of acceptance
        contents = [(*names, content) for names, content in self._contents.items()]
        counts = sorted((*names, number) for names, number in self._counts.items() if number)
        if changed or counts:
            row = await connection.fetchrow(
                _WRITE,
                *_columns(new, _INSERTED),
                *_transposed([self._new[record.id] for record in new], 2),
                *_columns([each for each in changed if each.id not in self._new], _UPDATED),
                *_transposed(contents, 3),
                hash(self.owner) % COUNT_SLOTS,
                *_transposed(counts, 3),
                channel,
                payloads(self.changes),
            )
            if row["added"] != len(new):
                raise Conflict


async def load(connection: Any, operations: Sequence[Operation[Any]], owner: str) -> Batch:
    """Begin the transaction, and read the rows that the operations name."""
    await connection.execute("BEGIN")
    ids = sorted({job_id for operation in operations for job_id in operation.ids if is_id(job_id)})
    rows = await connection.fetch(_FIRST, owner, ids)
    batch = Batch(rows[0]["now"], owner, bool(rows[0]["alive"]))
    if ids:
        batch.found(row for row in rows if row["id"] is not None)
    if limited := sorted({operation.limited for operation in operations} - {""}):
        await connection.execute(_LOCK_ROUTES, limited)
        batch.waiting = {each["route"]: each["number"] for each in await connection.fetch(_COUNT_WAITING, limited)}
    if keys := sorted({operation.key for operation in operations if operation.key is not None}):
        rows = await connection.fetch(_BY_KEYS, *map(list, zip(*keys, strict=True)))
        batch.keys = {(each["route"], each["key"]): decode(each["record"]) for each in rows}
    for operation in operations:
        await operation.load(connection, batch)
    return batch


_UPDATED: tuple[Callable[[Record], Any], ...] = (
    lambda record: record.id,
    lambda record: record.state.value,
    lambda record: record.priority,
    lambda record: record.due,
    lambda record: record.key,
    lambda record: record.owner,
    lambda record: record.expires,
    lambda record: record.expired,
    _encode,
)
_INSERTED = (_UPDATED[0], lambda record: record.route, lambda record: plain(record.path), *_UPDATED[1:])


def _columns(records: Sequence[Record], readers: Iterable[Callable[[Record], Any]]) -> list[list[Any]]:
    return [[read(record) for record in records] for read in readers]


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(width)]


def is_id(text: str) -> bool:
    """Whether it can be the id of a durable job; a client may ask for any text."""
    return len(text) == 32 and text.isascii() and text.isalnum()


def plain(path: str) -> str:
    """The path as PostgreSQL can hold it: text there has no NUL. The record has it as it is."""
    return path.replace("\0", "\N{REPLACEMENT CHARACTER}")
