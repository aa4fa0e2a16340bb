"""documents.py: the document of a durable job shows its record, and the requests that it takes now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tinysvc.jobs.records import CAUSES, AttemptRecord, Page, Progress, Record, State
from tinysvc.jobs.requests.documents import document_of, encoded, etag_of, page_of
from tinysvc.pool.crash_reports import describe_end

ID = "0" * 32


def record(state: State = State.QUEUED, **values: Any) -> Record:
    given: dict[str, Any] = {
        "route": "/users/{user}/trainings",
        "path": "/users/7/trainings",
        "created": 0.0,
        "due": 0.0,
        "keep": 60.0,
    }
    return Record(id=ID, state=state, max_attempts=3, **given | values)


def shown(found: Record, **options: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encoded(document_of(found, **options)))
    return document


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.SCHEDULED, {"cancel"}),
        (State.QUEUED, {"cancel"}),
        (State.RUNNING, {"cancel"}),
        (State.SUCCEEDED, set()),
        (State.FAILED, {"cancel", "retry"}),
        (State.CANCELLED, set()),
    ],
)
def test_links_name_the_requests_that_the_state_allows(state: State, expected: set[str]) -> None:
    links = shown(record(state))["links"]
    assert links.keys() == {"self", "result"} | expected
    assert links["self"] == f"/users/7/trainings/{ID}"


def test_links_begin_with_the_prefix_of_a_proxy() -> None:
    assert shown(record(), root_path="/api")["links"]["self"] == f"/api/users/7/trainings/{ID}"


def test_job_of_a_route_that_is_not_served_has_no_links() -> None:
    assert shown(record(), is_served=False)["links"] == {}


def test_times_are_rfc_3339_with_milliseconds() -> None:
    attempt = AttemptRecord(number=1, started=1.0004, ended=2.5, cause="deadline", detail="it took too long")
    found = shown(record(State.RUNNING, created=0.1234, attempts=[attempt], started=3.0, attempt=2, used=1))
    assert found["created"] == "1970-01-01T00:00:00.123000Z"
    assert found["started"] == "1970-01-01T00:00:03Z"
    assert found["attempts"] == [
        {
            "number": 1,
            "started": "1970-01-01T00:00:01Z",
            "ended": "1970-01-01T00:00:02.500000Z",
            "cause": "deadline",
            "detail": "it took too long",
            "counts": True,
        }
    ]


def test_progress_is_whole_after_success() -> None:
    half = Progress(fraction=0.5, values={"loss": 0.25})
    assert (shown(record(progress=half))["progress"], shown(record(progress=half))["values"]) == (0.5, {"loss": 0.25})
    assert shown(record(State.SUCCEEDED, progress=half))["progress"] == 1.0
    assert shown(record())["progress"] is None


def test_page_counts_every_state() -> None:
    found = json.loads(encoded(page_of(Page([record()], "", {"queued": 1}), "", None)))
    assert found["counts"] == {
        "scheduled": 0,
        "queued": 1,
        "running": 0,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
    }
    assert (len(found["jobs"]), found["next"]) == (1, None)


def test_entity_tag_changes_with_the_version() -> None:
    assert etag_of(record(version=1)) != etag_of(record(version=2))


@pytest.mark.parametrize("cause", sorted(CAUSES - {"succeeded"}))
def test_text_of_an_exception_is_for_the_operator_only(cause: str) -> None:
    attempt = AttemptRecord(number=1, started=1.0, ended=2.0, cause=cause, detail="password=secret")
    failed = record(State.FAILED, attempts=[attempt])
    is_public = cause in {
        "worker-died",
        "deadline",
        "server-died",
        "shutdown",
        "cancelled",
        "lease-lost",
        "not-started",
    }
    assert ("secret" in encoded(document_of(failed)).decode()) == is_public
    assert "secret" in encoded(document_of(failed, with_exceptions=True)).decode()


def test_stack_of_a_crashed_worker_is_for_the_operator_only() -> None:
    detail = describe_end(
        -11, "", out_of_memory=None, peak=2**20, stack='Fatal Python error\n  File "/own/a.py", line 7'
    )
    found = record(attempts=[AttemptRecord(number=1, started=1.0, ended=2.0, cause="worker-died", detail=detail)])
    assert "/own/a.py" in shown(found, with_exceptions=True)["attempts"][0]["detail"]
    assert shown(found)["attempts"][0]["detail"] == "was killed by SIGSEGV; peak memory 1 MiB"
