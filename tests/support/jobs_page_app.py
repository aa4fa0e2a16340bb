"""The page /jobs beside routes that cancel and retry jobs of a store in memory: a test decides what each job does."""

from __future__ import annotations

from typing import Annotated

from memory_store import MemoryStore
from tinysvc import Header, HTTPError, Request, Response, Service, io_route
from tinysvc.jobs.requests.list_page import jobs_pages

ROUTES = ("/trainings", "/imports")
TOKEN = "Bearer secret"


def service_of(store: MemoryStore) -> Service:
    pages = jobs_pages(store, ROUTES)

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
