"""postgres/batch.py: what a transaction collects, without a database."""

from __future__ import annotations

import msgspec
import pytest

from postgres_stores import new_job
from tinysvc.jobs import states
from tinysvc.jobs.postgres.batch import Batch, is_id, plain
from tinysvc.jobs.records import Record


def row_of(record: Record, place: int = 1) -> dict[str, object]:
    return {"id": record.id, "seq": place, "record": msgspec.msgpack.encode(record)}


def test_row_that_was_changed_in_the_batch_is_not_read_again() -> None:
    batch = Batch(10.0, "1-owner", True)
    record = states.accepted(new_job(), "a" * 32, 5.0)
    assert batch.found([row_of(record)]) == [record]
    claimed = batch.keep(changed(states.claim(record, "1-owner", 10.0)))
    assert batch.found([row_of(record)]) == [claimed]
    assert batch.places == {"a" * 32: 1}
    assert [(change.state, change.version) for change in batch.changes] == [("running", 2)]


def test_waiting_jobs_are_counted_within_the_batch() -> None:
    batch = Batch(10.0, "1-owner", True)
    batch.waiting = {"/trainings": 4}
    record = states.accepted(new_job(), "a" * 32, 5.0)
    batch.add(record, b"", b"")
    batch.add(states.accepted(new_job("/other"), "b" * 32, 5.0), b"", b"")
    assert batch.waiting == {"/trainings": 5}
    batch.keep(changed(states.cancel(record, 10.0)))
    assert batch.waiting == {"/trainings": 4}


def changed(answer: Record | states.Refusal) -> Record:
    assert isinstance(answer, Record)
    return answer


@pytest.mark.parametrize(
    ("text", "wanted"), [("0f" * 16, True), ("", False), ("0f" * 15, False), ("\0" * 32, False), ("ä" * 32, False)]
)
def test_only_ids_are_looked_up(text: str, wanted: bool) -> None:
    assert is_id(text) is wanted


def test_path_with_nul_can_be_held() -> None:
    assert plain("/a\0b") == "/a\ufffdb"
