"""job_document.py: the JSON of a durable job."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import msgspec

from tinysvc.jobs.records import CAUSES, State
from tinysvc.service.job_document import JOB_STATES, AttemptCause, AttemptDocument, JobDocument, JobLinks, JobPage

START = datetime(2026, 11, 29, 12, 0, 30, tzinfo=UTC)


def document() -> JobDocument:
    attempt = AttemptDocument(number=1, started=START, ended=None, cause="", detail="", counts=True)
    return JobDocument(
        id="0123456789abcdef0123456789abcdef",
        route="/trainings",
        state="running",
        progress=0.25,
        values={"loss": 1.5},
        attempt=1,
        attempts=[attempt],
        used=0,
        max_attempts=3,
        priority=0,
        key="",
        created=START,
        due=None,
        started=START,
        ended=None,
        expires=None,
        problem=None,
        has_saved=False,
        version=7,
        request_id="",
        links=JobLinks(job="/trainings/0", cancel="/trainings/0"),
    )


def test_times_are_written_as_in_rfc_3339() -> None:
    found = msgspec.json.decode(msgspec.json.encode(document()))
    assert (found["created"], found["ended"]) == ("2026-11-29T12:00:30Z", None)
    assert found["attempts"] == [
        {"number": 1, "started": "2026-11-29T12:00:30Z", "ended": None, "cause": "", "detail": "", "counts": True}
    ]


def test_link_that_is_not_known_is_left_out() -> None:
    found = msgspec.json.decode(msgspec.json.encode(document()))
    assert found["links"] == {"self": "/trainings/0", "cancel": "/trainings/0"}
    assert msgspec.json.encode(JobLinks()) == b"{}"


def test_page_of_jobs_reads_as_it_is_written() -> None:
    page = JobPage(jobs=[document()], counts={"running": 1}, next=None)
    assert msgspec.json.decode(msgspec.json.encode(page), type=JobPage) == page


def test_causes_and_states_are_those_of_the_records() -> None:
    assert set(get_args(AttemptCause)) == {"", *CAUSES}
    assert set(JOB_STATES) == {state.value for state in State}


def test_states_are_those_of_the_schema() -> None:
    definitions = msgspec.json.schema(JobDocument)["$defs"]
    assert sorted(JOB_STATES) == definitions["JobDocument"]["properties"]["state"]["enum"]
