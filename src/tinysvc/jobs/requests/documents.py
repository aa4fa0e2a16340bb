"""The document of a durable job, which clients read: its record, with times as in RFC 3339 and links."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload

import msgspec
from msgspec import UNSET

from ...runtime.job_headers import shown_key
from ...service.job_document import JOB_STATES, AttemptDocument, JobDocument, JobLinks, JobPage
from ..records import AttemptRecord, Page, Record, State

PRIVATE_CAUSES = frozenset({"error", "unencodable", "saved-unreadable", "arguments-no-longer-fit"})
"""Causes whose detail is the text of an exception: it may hold secrets, as the address of a database does."""


def document_of(
    record: Record, root_path: str = "", *, is_served: bool = True, with_exceptions: bool = False
) -> JobDocument:
    """The document of a durable job.

    Args:
        record: Its record.
        root_path: Prefix that a proxy removes from each path.
        is_served: Whether its route is served here. Otherwise the document has no links.
        with_exceptions: Show the texts of exceptions in the attempts: for the operator, and not for clients. These see
            the `problem` of a failed durable job, as they see that of a failed request.
    """
    progress = record.progress
    return JobDocument(
        id=record.id,
        route=record.route,
        state=record.state.value,
        progress=_fraction(record),
        values={} if progress is None else progress.values,
        attempt=record.attempt,
        attempts=[_attempt(each, with_exceptions) for each in record.attempts],
        used=record.used,
        max_attempts=record.max_attempts,
        priority=record.priority,
        key=shown_key(record.key),
        created=_moment(record.created),
        due=_moment(record.due),
        started=_moment(record.started),
        ended=_moment(record.ended),
        expires=_moment(record.expires),
        problem=record.problem,
        has_saved=record.has_saved,
        version=record.version,
        request_id=record.request_id,
        links=links_of(record, root_path) if is_served else JobLinks(),
    )


def page_of(page: Page, root_path: str, next_path: str | None) -> JobPage:
    """The document of a page of durable jobs.

    Args:
        page: The page.
        root_path: As for `document_of`.
        next_path: The path of the next page, if there is one.
    """
    return JobPage(
        jobs=[document_of(each, root_path) for each in page.records],
        counts={state: page.counts.get(state, 0) for state in JOB_STATES},
        next=next_path,
    )


def encoded(document: JobDocument | JobPage) -> bytes:
    """The document as JSON."""
    return _encode(document)


_encode = msgspec.json.Encoder(enc_hook=str).encode


def links_of(record: Record, root_path: str = "") -> JobLinks:
    """The paths of the requests that the durable job takes now."""
    own = url_of(record, root_path)
    return JobLinks(
        job=own,
        result=f"{own}/result",
        cancel=UNSET if record.state in (State.SUCCEEDED, State.CANCELLED) else own,
        retry=f"{own}/retry" if record.state == State.FAILED else UNSET,
    )


def url_of(record: Record, root_path: str = "") -> str:
    """The path of the durable job."""
    return f"{root_path}{record.path.rstrip('/')}/{record.id}"


def etag_of(record: Record) -> str:
    """The entity-tag of the document."""
    return f"{record.version}-{record.state}"


def _fraction(record: Record) -> float | None:
    if record.state == State.SUCCEEDED:
        return 1.0
    return None if record.progress is None else record.progress.fraction


def _attempt(attempt: AttemptRecord, with_exceptions: bool) -> AttemptDocument:
    return AttemptDocument(
        number=attempt.number,
        started=_moment(attempt.started),
        ended=_moment(attempt.ended),
        cause=attempt.cause,  # type: ignore[arg-type]  # the same words
        detail=attempt.detail if with_exceptions else _public(attempt),
        counts=attempt.counts,
    )


def _public(attempt: AttemptRecord) -> str:
    """The detail without the text of an exception, and without the stack of a worker that has crashed."""
    return "" if attempt.cause in PRIVATE_CAUSES else attempt.detail.partition("; Python stack, ")[0]


@overload
def _moment(seconds: float) -> datetime: ...
@overload
def _moment(seconds: None) -> None: ...
@overload
def _moment(seconds: float | None) -> datetime | None: ...
def _moment(seconds: float | None) -> datetime | None:
    """A time in UTC, in whole milliseconds: a float has more digits, and no meaning in them."""
    return None if seconds is None else datetime.fromtimestamp(round(seconds, 3), UTC)
