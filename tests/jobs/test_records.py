"""records.py: the records survive the way through msgpack, which stores and the keeper's socket use."""

from __future__ import annotations

import msgspec
import pytest

from tinysvc.jobs.records import (
    CAUSES,
    ENDED,
    WAITING,
    AttemptRecord,
    CancelOutcome,
    Change,
    Claimed,
    NewJob,
    Page,
    Progress,
    Record,
    ResultHead,
    State,
    Submitted,
)

RECORD = Record(
    id="0" * 32,
    route="/trainings",
    state=State.RUNNING,
    digest=b"\x00\xff",
    created=1.5,
    due=2.25,
    keep=60.0,
    attempt=2,
    max_attempts=3,
    attempts=[AttemptRecord(number=1, started=3.0, ended=4.0, cause="error", detail="ValueError: no")],
    progress=Progress(fraction=0.5, values={"loss": 0.25}),
    result=ResultHead(status=200, content_type=None, headers=[("etag", '"1"')], size=3),
    problem={"status": 500},
)
VALUES = [
    NewJob(route="/trainings", request=b"\x80", body=b"\x00", due=3.0),
    Submitted(RECORD, True),
    Claimed(RECORD, b"request", b"body", None),
    Change("0" * 32, "/trainings", State.FAILED, 7),
    CancelOutcome("cancelled", RECORD, "server", 2),
    Page([RECORD], "12", {"running": 1}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_survives_msgpack(value: msgspec.Struct) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value)) == value


def test_every_state_waits_runs_or_has_ended() -> None:
    assert set(State) == WAITING | ENDED | {State.RUNNING}
    assert not WAITING & ENDED


def test_causes_are_words_of_a_url() -> None:
    assert all(cause.replace("-", "").isalpha() for cause in CAUSES)
