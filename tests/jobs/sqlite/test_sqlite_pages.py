"""sqlite/pages.py: no page scans or sorts the table."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tinysvc.jobs.records import State
from tinysvc.jobs.sqlite.database_file import connect, prepare_file
from tinysvc.jobs.sqlite.pages import Filter, insert_rows, read_page

ROUTE = "/trainings"


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(None, None, None),
        Filter(ROUTE, None, None),
        Filter(ROUTE, State.FAILED, None),
        Filter(None, State.FAILED, None),
        Filter("/users/{user}", None, "/users/7"),
        Filter(None, State.QUEUED, "/users/7"),
    ],
    ids=str,
)
def test_page_uses_an_index(wanted: Filter, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    prepare_file(path)
    db = connect(path, 1.0)
    queries: list[str] = []
    db.set_trace_callback(queries.append)
    read_page(db, {(ROUTE, State.FAILED): 3, (ROUTE, State.QUEUED): 1}, wanted, 10, "50")
    db.set_trace_callback(None)
    assert queries
    for query in queries:
        plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "SEARCH jobs USING" in plan, plan
        assert "TEMP B-TREE" not in plan, plan
    db.close()


def test_cursor_of_another_origin_is_refused(tmp_path: Path) -> None:
    prepare_file(tmp_path / "jobs.db")
    db = connect(tmp_path / "jobs.db", 1.0)
    with pytest.raises(ValueError, match="a cursor is `next` of a page"):
        read_page(db, {}, Filter(None, None, None), 10, "x; DROP TABLE jobs")
    db.close()


def test_many_rows_are_inserted_in_few_statements() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE jobs (seq INTEGER PRIMARY KEY, id TEXT)")
    queries: list[str] = []
    db.set_trace_callback(queries.append)
    insert_rows(db, "jobs", [(number, str(number)) for number in range(130)])
    db.set_trace_callback(None)
    assert len([query for query in queries if query.startswith("INSERT")]) == 3
    assert db.execute("SELECT count(*), max(id = seq) FROM jobs").fetchone() == (130, 1)
    db.close()
