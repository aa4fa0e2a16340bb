"""endpoints.py: live streams, the budget of a request, and compression around the handlers of a job route."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from job_services import JobService, document, header, job_service
from tinysvc import Background, Handler, Request, io_resource, job_route
from tinysvc.core.responses import Response
from tinysvc.jobs.records import Failure, Progress

EVENTS = {"accept": "text/event-stream"}
marks: list[str] = []


@job_route("/trainings")
def train() -> None: ...


@io_resource
async def session(request: Request) -> AsyncIterator[str]:
    marks.append("open")
    yield "session"
    marks.append("closed")


@io_resource
async def audit(request: Request, background: Background) -> None:
    background.add(marks.append, f"{request.method} {request.path.rpartition('/')[2][:6]}")


@job_route("/audited")
def audited(audit: None) -> None: ...


@job_route("/guarded")
def guarded(session: str) -> None: ...


async def events_of(response: Response) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    """The id and the data of each event."""
    async for piece in response.content:
        fields = dict(line.split(": ", 1) for line in piece.decode().strip().split("\n"))
        yield fields["id"], json.loads(fields["data"])


async def streamed(service: JobService, path: str, **headers: str) -> Response:
    response = await service.send("GET", path, headers={**EVENTS, **headers})
    assert (response.status, response.content_type) == (200, "text/event-stream; charset=utf-8")
    return response


@pytest.mark.asyncio
async def test_stream_has_each_change_and_ends_with_the_job() -> None:
    async with job_service(train) as service:
        job = await service.post("/trainings")
        events = events_of(await streamed(service, job["links"]["self"]))
        assert await anext(events) == (str(job["version"]), job)
        await service.claim()
        assert (await anext(events))[1]["state"] == "running"
        await service.store.progress(job["id"], 1, Progress(fraction=0.5))
        assert (await anext(events))[1]["progress"] == 0.5
        await service.store.fail(job["id"], 1, Failure("error"))
        assert [data["state"] async for _, data in events] == ["failed"]


@pytest.mark.asyncio
async def test_stream_is_resumed_after_the_last_id() -> None:
    async with job_service(train) as service:
        job = await service.post("/trainings")
        events = events_of(await streamed(service, job["links"]["self"], **{"last-event-id": str(job["version"])}))
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.01)
        assert not following.done()
        record = await service.succeed()
        assert (await following)[0] == str(record.version)
        done = await service.send("GET", job["links"]["self"], headers={**EVENTS, "last-event-id": str(record.version)})
        assert done.status == 204, "an EventSource does not connect again"
        late = events_of(await streamed(service, job["links"]["self"], **{"last-event-id": "1"}))
        assert [data["state"] async for _, data in late] == ["succeeded"]


@pytest.mark.asyncio
async def test_last_id_of_another_store_begins_the_stream_anew() -> None:
    async with job_service(train) as service:
        job = await service.post("/trainings")
        events = events_of(await streamed(service, job["links"]["self"], **{"last-event-id": "7000"}))
        assert (await anext(events))[1] == job
        await events.aclose()


@pytest.mark.asyncio
async def test_resources_of_the_request_close_before_the_stream() -> None:
    marks.clear()
    async with job_service(guarded, session) as service:
        job = await service.post("/guarded")
        events = events_of(await streamed(service, job["links"]["self"]))
        await anext(events)
        assert marks == ["open", "closed"] * 2
        await events.aclose()


@pytest.mark.asyncio
async def test_stream_passes_through_middleware() -> None:
    async def note(request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        response.add_header("x-noted", request.method)
        return response

    async with job_service(guarded, session, middleware=[note]) as service:
        job = await service.post("/guarded")
        response = await streamed(service, job["links"]["self"])
        assert header(response, "x-noted") == "GET"
        await service.succeed()
        assert [data["state"] async for _, data in events_of(response)] == ["succeeded"]


@pytest.mark.asyncio
async def test_client_that_accepts_neither_gets_406() -> None:
    async with job_service(train) as service:
        job = await service.post("/trainings")
        assert (await service.send("GET", job["links"]["self"], headers={"accept": "image/png"})).status == 406


@pytest.mark.asyncio
async def test_budget_of_the_request_ends_a_preferred_wait_with_202() -> None:
    async with job_service(train) as service:
        request = Request("POST", "/trainings")
        request.headers.raw = [(b"prefer", b"wait=60")]
        request.time_limit = asyncio.get_running_loop().time() + 0.3
        response = await service.running(request)
        assert (response.status, document(response)["state"]) == (202, "queued")
        assert header(response, "preference-applied") == "wait=60"


@pytest.mark.asyncio
async def test_documents_are_compressed_where_the_server_compresses() -> None:
    async with job_service(train, settings={"compress": True}) as service:
        jobs = [await service.post("/trainings") for _ in range(5)]
        gzip_too = {"accept-encoding": "gzip"}
        whole = await service.send("GET", "/trainings", headers=gzip_too)
        assert header(whole, "content-encoding") == "gzip"
        assert json.loads(gzip.decompress(whole.content))["jobs"] == jobs[::-1]
        events = events_of(await streamed(service, jobs[0]["links"]["self"], **gzip_too))
        assert (await anext(events))[1] == jobs[0]
        await events.aclose()


@pytest.mark.asyncio
async def test_drain_ends_each_wait_for_the_end_of_a_job() -> None:
    async with job_service(train) as service:
        waiting = asyncio.create_task(service.send("POST", "/trainings", headers={"prefer": "wait=60"}))
        while not service.store.watchers:
            await asyncio.sleep(0.001)
        service.jobs.endpoints.pause()
        assert (await waiting).status == 202
        assert (await service.send("POST", "/trainings", headers={"prefer": "wait=60"})).status == 202


@pytest.mark.asyncio
async def test_resource_of_the_request_adds_background_tasks_for_every_verb() -> None:
    marks.clear()
    async with job_service(audited, audit) as service:
        path = (await service.post("/audited"))["links"]["self"]
        await service.send("GET", "/audited")
        await service.send("DELETE", path)
    assert sorted(marks) == sorted(["POST audite", "GET audite", f"DELETE {path.rpartition('/')[2][:6]}"])
