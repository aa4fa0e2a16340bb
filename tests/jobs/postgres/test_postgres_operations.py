"""postgres/operations.py: a repeated change recognizes its own earlier commit, and only that."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from postgres_stores import HEAD, new_job
from tinysvc.core.job_errors import KeyReused, TooManyWaiting
from tinysvc.jobs import states
from tinysvc.jobs.postgres.batch import Batch, Operation
from tinysvc.jobs.postgres.operations import Accept, AttemptWrite, Cancel, Retry, Stopped
from tinysvc.jobs.records import Failure, Record, State

ID = "a" * 32
OWNER = "1-owner"


def running() -> Record:
    return changed(states.claim(states.accepted(new_job(), ID, 5.0), OWNER, 6.0))


def changed(answer: Record | states.Refusal) -> Record:
    assert isinstance(answer, Record)
    return answer


def answer_of(operation: Operation[Any], record: Record | None, *, repeated: bool = False) -> Any:
    batch = Batch(10.0, OWNER, True)
    if record is not None:
        batch.records[record.id] = record
    operation.repeated = repeated
    return operation.apply(batch)


def finish() -> AttemptWrite:
    return AttemptWrite(ID, 1, lambda record, now: states.finish(record, 1, HEAD, now), cause="succeeded")


FINISHED = changed(states.finish(running(), 1, HEAD, 7.0))
LAPSED = changed(states.lapse(running(), 7.0))
ELSEWHERE = replace(running(), owner="2-other")
CANCELLED = changed(states.cancel(running(), 7.0))
FAILED = changed(states.fail(running(), 1, Failure("error"), 7.0))


@pytest.mark.parametrize(
    ("record", "repeated", "wanted"),
    [
        (running(), False, True),
        (running(), True, True),  # the earlier commit did not take place
        (FINISHED, True, True),  # it did
        (FINISHED, False, False),  # someone else's
        (LAPSED, True, False),
        (CANCELLED, True, False),
        (FAILED, True, False),
        (ELSEWHERE, False, False),
        (ELSEWHERE, True, False),
        (None, True, False),
    ],
)
def test_end_of_an_attempt(record: Record | None, repeated: bool, wanted: bool) -> None:
    assert answer_of(finish(), record, repeated=repeated) is wanted


@pytest.mark.parametrize("repeated", [False, True])
def test_failure_that_was_cut_off_is_recognized_while_the_next_attempt_runs(repeated: bool) -> None:
    paused = changed(states.fail(running(), 1, Failure("error", retry_at=7.0), 7.0))
    again = changed(states.claim(paused, OWNER, 8.0))
    fail = AttemptWrite(
        ID, 1, lambda record, now: states.fail(record, 1, Failure("error", retry_at=now), now), cause="error"
    )
    assert answer_of(fail, again, repeated=repeated) is repeated


@pytest.mark.parametrize("repeated", [False, True])
def test_cancel_that_was_cut_off_answers_as_the_first(repeated: bool) -> None:
    outcome = answer_of(Cancel(ID), CANCELLED, repeated=repeated)
    assert (outcome.kind, outcome.owner) == ("cancelled" if repeated else "was-cancelled", OWNER)
    assert answer_of(Cancel(ID), FINISHED, repeated=repeated).kind == "ended"


@pytest.mark.parametrize("repeated", [False, True])
def test_stopped_that_was_cut_off_answers_as_the_first(repeated: bool) -> None:
    assert answer_of(Stopped(ID, 1), CANCELLED) is True
    stopped = changed(states.stopped(CANCELLED, 1))
    assert answer_of(Stopped(ID, 1), stopped, repeated=repeated) is repeated
    assert answer_of(Stopped(ID, 2), CANCELLED, repeated=repeated) is False


@pytest.mark.parametrize("repeated", [False, True])
def test_retry_that_was_cut_off_answers_as_the_first(repeated: bool) -> None:
    retried = changed(states.retry(FAILED, 8.0))
    assert answer_of(Retry(ID), FAILED).state == State.QUEUED
    assert isinstance(answer_of(Retry(ID), retried, repeated=repeated), Record) is repeated
    assert isinstance(answer_of(Retry(ID), FINISHED, repeated=repeated), states.Refusal)


def test_accepted_job_is_found_by_its_key_or_refused() -> None:
    batch = Batch(10.0, OWNER, True)
    first = Accept(new_job(key="k", digest=b"d")).apply(batch)
    again = Accept(new_job(key="k", digest=b"d")).apply(batch)
    assert (first.is_new, again.is_new, again.record.id) == (True, False, first.record.id)
    with pytest.raises(KeyReused):
        Accept(new_job(key="k", digest=b"e")).apply(batch)


def test_job_beyond_the_limit_is_refused() -> None:
    batch = Batch(10.0, OWNER, True)
    batch.waiting = {"/trainings": 1}
    assert Accept(new_job(max_waiting=2)).apply(batch).is_new
    with pytest.raises(TooManyWaiting):
        Accept(new_job(max_waiting=2)).apply(batch)
