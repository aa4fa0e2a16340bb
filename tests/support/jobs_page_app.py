"""The page /jobs beside routes that cancel and retry jobs of a store in memory: a test decides what each job does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET

from memory_store import MemoryStore
from tinysvc import Header, HTTPError, Request, Response, Service, io_route
from tinysvc.jobs.list_page import jobs_pages
from tinysvc.jobs.records import Record
from tinysvc.service.job_document import AttemptDocument, JobDocument, JobLinks

ROUTES = ("/trainings", "/imports")
TOKEN = "Bearer secret"


def document_of(record: Record, root_path: str) -> JobDocument:
    """As the job routes answer it; the store's clock gives whole seconds."""
    own = f"{root_path}{record.route}/{record.id}"
    links = JobLinks(
        job=own,
        result=f"{own}/result",
        cancel=own if record.ended is None else UNSET,
        retry=f"{own}/retry" if record.state == "failed" else UNSET,
    )
    progress = record.progress
    return JobDocument(
        id=record.id,
        route=record.route,
        state=record.state.value,
        progress=progress.fraction if progress else None,
        values=progress.values if progress else {},
        attempt=record.attempt,
        used=record.used,
        max_attempts=record.max_attempts,
        priority=record.priority,
        key=record.key,
        created=datetime.fromtimestamp(record.created, UTC),
        due=_time(record.due),
        started=_time(record.started),
        ended=_time(record.ended),
        expires=_time(record.expires),
        problem=record.problem,
        has_saved=record.has_saved,
        version=record.version,
        request_id=record.request_id,
        attempts=[
            AttemptDocument(
                number=each.number,
                started=datetime.fromtimestamp(each.started, UTC),
                ended=_time(each.ended),
                cause=each.cause,  # type: ignore[arg-type]
                detail=each.detail,
                counts=each.counts,
            )
            for each in record.attempts
        ],
        links=links if record.route in ROUTES else JobLinks(),
    )


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def service_of(store: MemoryStore) -> Service:
    pages = jobs_pages(store, document_of, ROUTES)

    @io_route("/jobs")
    async def page(request: Request) -> Response:
        return await pages["/jobs"](request)

    @io_route("/jobs.json")
    async def listed(request: Request) -> Response:
        return await pages["/jobs.json"](request)

    @io_route("/trainings/{job_id}", methods=["DELETE"])
    async def cancel(job_id: str) -> None:
        outcome = await store.cancel(job_id)
        await store.stopped(job_id, outcome.attempt)

    @io_route("/imports/{job_id}", methods=["DELETE"])
    async def guarded_cancel(job_id: str, authorization: Annotated[str, Header()] = "") -> None:
        if authorization != TOKEN:
            raise HTTPError(401, "A token is missing.")
        await cancel(job_id)

    @io_route("/trainings/{job_id}/retry", methods=["POST"])
    async def retry(job_id: str) -> None:
        await store.retry(job_id)

    return Service(page, listed, cancel, guarded_cancel, retry)
