"""Pages of durable jobs from the tables of SQLite. Each page costs as much with 100,000 rows as with 100."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from ..cursors import place_of
from ..records import Page, Record, State

INSERTED = 64
"""Rows of one INSERT: their parameters stay below the limit of old versions, 999."""

decode = msgspec.json.Decoder(Record).decode
"""A record from the column `record`."""


class Filter(NamedTuple):
    """Which durable jobs a page lists. None: all."""

    route: str | None
    state: State | None
    path: str | None


def read_page(
    db: sqlite3.Connection, counts: Mapping[tuple[str, State], int], wanted: Filter, limit: int, cursor: str
) -> Page:
    """A page, the newest first. `counts` has the number of rows for each route and state."""
    route, state, path = wanted
    if path is not None and route in (None, path) and any(path == known for known, _ in counts):
        route, path = path, None  # a route without parameters: its rows have no path
    if path is not None:
        found, ranges = _by_path(db, path, route, state)
    else:
        mine = {key: number for key, number in counts.items() if route in (None, key[0]) and number}
        found = {}
        for (_, each), number in mine.items():
            found[str(each)] = found.get(str(each), 0) + number
        ranges = [("route = ? AND state = ?", key) for key in mine if state in (None, key[1])]
        if route is None and state is None:
            ranges = [("true", ())]
    before = place_of(cursor)
    rows: list[tuple[int, str]] = []
    for where, values in ranges:
        query = f"SELECT seq, record FROM jobs WHERE {where} AND seq < ? ORDER BY seq DESC LIMIT ?"  # noqa: S608
        rows += db.execute(query, (*values, before, limit + 1))
    rows.sort(reverse=True)
    following = str(rows[limit - 1][0]) if len(rows) > limit else ""
    return Page([decode(text) for _, text in rows[:limit]], following, found)


def _by_path(
    db: sqlite3.Connection, path: str, route: str | None, state: State | None
) -> tuple[dict[str, int], list[tuple[str, tuple[Any, ...]]]]:
    """The counts, and the index ranges, of the durable jobs of one path: those of one user, say. They are few."""
    where, values = ("path = ? AND route = ?", (path, route)) if route is not None else ("path = ?", (path,))
    query = f"SELECT state, count(*) FROM jobs WHERE {where} GROUP BY state"  # noqa: S608
    counts: dict[str, int] = dict(db.execute(query, values).fetchall())
    wanted = [state] if state else list(State)
    return counts, [(f"{where} AND state = ?", (*values, each)) for each in wanted]


def insert_rows(db: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows with as few calls as possible: each call of SQLite releases the GIL."""
    for first in range(0, len(rows), INSERTED):
        part = rows[first : first + INSERTED]
        marks = f"({', '.join('?' * len(part[0]))})"
        query = f"INSERT INTO {table} VALUES {', '.join([marks] * len(part))}"  # noqa: S608
        db.execute(query, [value for row in part for value in row])
