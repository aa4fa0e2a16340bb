"""sqlite/tables.py: the queries of the hot operations use their indexes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tinysvc.jobs.records import Failure, NewJob, Progress, ResultHead, State
from tinysvc.jobs.sqlite.database_file import prepare_file
from tinysvc.jobs.sqlite.tables import Content, Tables

ROUTE = "/trainings"
HEAD = ResultHead(status=200, content_type="application/json")


@pytest.fixture
def tables(tmp_path: Path) -> Any:
    prepare_file(tmp_path / "jobs.db")
    tables = Tables(tmp_path / "jobs.db", "server", "service", lambda changes, removed: None)
    db = tables.connect()
    yield tables, db
    db.close()


def new(**options: Any) -> NewJob:
    return NewJob(route=ROUTE, request=b"\x80", **options)


def test_no_operation_scans_the_table(tables: Any) -> None:
    """So 100,000 waiting jobs cost as much as 100."""
    table, db = tables
    queries: list[str] = []
    db.execute("BEGIN")
    table.begin()
    job_id = table.submit(new(), None).record.id
    table.submit(new(due=5e9), None)
    table.finish()
    db.execute("COMMIT")
    table.committed()
    db.set_trace_callback(queries.append)
    db.execute("BEGIN")
    table.begin()
    table.submit(new(key="k"), None)
    table.next_due()
    table.claim({ROUTE: 3}, 3, "")
    table.attempts_of("server")
    table.fail(job_id, 1, Failure("error", retry_at=5e9))
    table.cancel(job_id)
    table.sweep(9e9)
    table.get(job_id)
    table.result(job_id)
    table.last_tick("nightly")
    table.finish()
    db.execute("COMMIT")
    db.set_trace_callback(None)
    for query in queries:
        if query.startswith(("SELECT", "UPDATE", "DELETE")):
            plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}"))
            assert "SCAN" not in plan or "SCAN 1 CONSTANT ROW" in plan, (query, plan)
            assert "TEMP B-TREE" not in plan, (query, plan)


def work_of(table: Tables, db: sqlite3.Connection) -> dict[str, int]:
    """Instructions of SQLite's virtual machine for each hot operation."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1

    db.set_progress_handler(tick, 1)
    found = {}
    for name, operation in {
        "submit": lambda: table.submit(new(), None),
        "claim": lambda: table.claim({ROUTE: 1}, 1, ""),
        "finish": lambda: table.finish_attempt(table.attempts_of("server")[0].id, 1, HEAD, Content(None, b"")),
        "page": lambda: table.page(ROUTE, None, 20, "", ROUTE),
        "page of a state": lambda: table.page(None, State.QUEUED, 20, "", None),
        "next due": table.next_due,
    }.items():
        db.execute("BEGIN")
        table.begin()
        count = 0
        operation()
        table.finish()
        found[name] = count
        db.execute("COMMIT")
        table.committed()
    db.set_progress_handler(None, 1)
    return found


def test_waiting_jobs_cost_nothing(tables: Any) -> None:
    """POST, claim and list take as many steps with 20,000 waiting jobs as with 100."""
    table, db = tables
    found = []
    for number in (100, 20_000):
        db.execute("BEGIN")
        table.begin()
        for _ in range(number):
            table.submit(new(), None)
        table.finish()
        db.execute("COMMIT")
        table.committed()
        found.append(work_of(table, db))
    few, many = found
    assert min(few.values()) > 3
    for name, steps in many.items():
        assert steps <= few[name] * 1.2, (name, few[name], steps)


def test_rolled_back_transaction_leaves_the_counts(tables: Any) -> None:
    table, db = tables
    db.execute("BEGIN")
    table.begin()
    table.submit(new(), None)
    db.execute("ROLLBACK")
    table.rolled_back()
    assert table.page(None, None, 10, "", None).counts == {}
    assert table.report() is None


def test_progress_is_written_with_the_next_change(tables: Any) -> None:
    table, db = tables
    for step in range(2):
        db.execute("BEGIN")
        table.begin()
        if step == 0:
            job_id = table.submit(new(), None).record.id
            table.claim({ROUTE: 1}, 1, "")
        table.finish()
        db.execute("COMMIT")
        table.committed()
        in_file = db.execute("SELECT record ->> 'progress' FROM jobs").fetchone()[0]
        assert (in_file is None) == (step == 0)
        if step == 0:
            assert table.progress(job_id, 1, Progress(fraction=0.5))
            assert table.unwritten()
            assert table.get(job_id).progress == Progress(fraction=0.5)
    assert not table.unwritten()
