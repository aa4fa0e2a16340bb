"""Pages of records from PostgreSQL, and their counts, in time that does not grow with the number of durable jobs."""

from __future__ import annotations

from typing import Any

from ..cursors import place_of
from ..records import Page, State
from .batch import decode, plain
from .connection import Readers

_COUNTS = """SELECT route, state, sum(number)::bigint AS number FROM tinysvc_job_counts
    WHERE $1::text IS NULL OR route = $1 GROUP BY route, state"""
_COUNTS_OF_PATH = """SELECT route, state, count(*) AS number FROM tinysvc_jobs WHERE path = $2 AND NOT expired
    AND ($1::text IS NULL OR route = $1) GROUP BY route, state"""

_BY_STATE = """SELECT found.seq, found.record FROM unnest($1::text[], $2::text[]) AS asked (route, state)
    CROSS JOIN LATERAL (SELECT seq, record FROM tinysvc_jobs AS jobs WHERE jobs.route = asked.route
    AND jobs.state = asked.state AND seq < $3 AND NOT expired AND ($5::text IS NULL OR path = $5)
    ORDER BY seq DESC LIMIT $4) AS found
    ORDER BY found.seq DESC LIMIT $4"""
_BY_PATH = """SELECT seq, record FROM tinysvc_jobs WHERE path = $1 AND seq < $2 AND NOT expired
    AND ($4::text IS NULL OR route = $4) AND ($5::text IS NULL OR state = $5) ORDER BY seq DESC LIMIT $3"""


async def read_page(
    readers: Readers, route: str | None, state: State | None, limit: int, cursor: str, path: str | None
) -> Page:
    """See store.py: Store.page. Raises ValueError if the cursor is none of ours.

    A route without parameters has one path: then its records are found, and counted, by the route alone.
    """
    path = plain(path) if path is not None else None
    by_path = path is not None and path != route
    counts = await readers.fetch(_COUNTS_OF_PATH, route, path) if by_path else await readers.fetch(_COUNTS, route)
    before = place_of(cursor)
    rows: list[Any] = []
    if by_path:
        rows = await readers.fetch(_BY_PATH, path, before, limit + 1, route, state and state.value)
    elif asked := [row for row in counts if row["number"] and state in (None, row["state"])]:
        names = [row["route"] for row in asked], [row["state"] for row in asked]
        rows = await readers.fetch(_BY_STATE, *names, before, limit + 1, path)
    numbers: dict[str, int] = {}
    for row in counts:
        if row["number"]:
            numbers[row["state"]] = numbers.get(row["state"], 0) + row["number"]
    more = str(rows[limit - 1]["seq"]) if len(rows) > limit else ""
    return Page([decode(row["record"]) for row in rows[:limit]], more, numbers)
