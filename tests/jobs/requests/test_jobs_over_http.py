"""Job routes over real connections: watchers that read slowly or disconnect, and bodies and results that are huge."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from http_ends import Client, get, on_loop, post, serving
from job_services import JobService, job_service
from tinysvc import job_route
from tinysvc.jobs.records import NewJob, Progress, ResultHead
from tinysvc.jobs.requests import watchers
from tinysvc.jobs.sqlite.store import SqliteStore

EVENTS = "Accept: text/event-stream"


@job_route("/trainings")
def train() -> None: ...


@job_route("/uploads", max_body_size=1000)
def upload(body: bytes) -> None: ...


async def running_job(service: JobService) -> dict[str, Any]:
    job = await service.post("/trainings")
    await service.claim()
    return job


async def events_until(client: Client, state: str) -> list[dict[str, Any]]:
    """The documents that arrive as events, up to the first one with this state."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["state"] != state:
        line = await client.reader.readline()
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    return found


@on_loop
async def test_progress_arrives_as_events() -> None:
    async with job_service(train) as service, serving(service.running) as server, server.client() as client:
        job = await running_job(service)
        client.send(get(job["links"]["self"], EVENTS))
        assert b"200 OK" in await client.reader.readline()
        for step in range(1, 4):
            await service.store.progress(job["id"], 1, Progress(fraction=step / 4))
            await asyncio.sleep(0.15)
        await service.store.finish(job["id"], 1, ResultHead(status=204, content_type=None), b"")
        found = await events_until(client, "succeeded")
        assert [each["progress"] for each in found if each["state"] == "running"][-1] == 0.75
        assert await client.reader.readuntil(b"0\r\n\r\n"), "the stream ends with the job"


def test_slow_watcher_slows_no_job_and_gets_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher reads nothing while the job reports more than the buffers between them hold."""
    monkeypatch.setattr(watchers, "READS", 100_000)
    on_loop(run_with_slow_watcher)()


async def run_with_slow_watcher() -> None:
    async with job_service(train) as service, serving(service.running) as server, server.client() as client:
        job = await running_job(service)
        client.send(get(job["links"]["self"], EVENTS))
        await client.reader.readuntil(b"\r\n\r\n")
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        text = "x" * 60_000
        for step in range(2000):
            await service.store.progress(job["id"], 1, Progress(fraction=step / 2000, values={"text": text}))
            for _ in range(20):
                await asyncio.sleep(0)
        await service.store.finish(job["id"], 1, ResultHead(status=204, content_type=None), b"")
        assert server.only.write_paused
        assert server.only.transport.get_write_buffer_size() < 1_000_000
        client.reader._transport.resume_reading()  # type: ignore[attr-defined]
        found = await events_until(client, "succeeded")
        assert len(found) < 1000, "the watcher gets the newest state, and not all of them"


@on_loop
async def test_watcher_that_disconnects_is_forgotten() -> None:
    async with job_service(train) as service, serving(service.running) as server:
        job = await running_job(service)
        async with server.client() as client:
            client.send(get(job["links"]["self"], EVENTS))
            await client.reader.readuntil(b"\r\n\r\n")
            while not service.store.watchers:
                await asyncio.sleep(0.001)
            client.reset()
        async with asyncio.timeout(20):
            while service.store.watchers:
                await asyncio.sleep(0.01)


@on_loop
async def test_client_that_disconnects_from_a_preferred_wait_leaves_no_watcher() -> None:
    async with job_service(train) as service, serving(service.running) as server:
        async with server.client() as client:
            client.send(post(b"", "/trainings", "Prefer: wait=60"))
            while not service.store.watchers:
                await asyncio.sleep(0.001)
            client.reset()
        async with asyncio.timeout(20):
            while service.store.watchers:
                await asyncio.sleep(0.01)
        assert [record.state for record in service.store.records.values()] == ["queued"]


@on_loop
async def test_huge_body_is_refused_before_anything_is_stored() -> None:
    async with job_service(upload) as service, serving(service.running) as server:
        chunk = b"%x\r\n" % 1001 + b"x" * 1001
        for field, body in (("Content-Length: 1001", b"x"), ("Transfer-Encoding: chunked", chunk)):
            async with server.client() as client:
                assert (await client.ask(get("/uploads", field, method="POST") + body)).status == 413
        assert not service.store.records
        async with server.client() as client:
            assert (await client.ask(post(b"x" * 1000, "/uploads"))).status == 202


@on_loop
async def test_result_is_read_to_its_end_while_its_retention_ends(tmp_path: Path) -> None:
    """The kernel's buffers hold some of the result: the rest is read from the file after the sweep."""
    store = SqliteStore(tmp_path / "jobs.db")
    await store.open("me", "")
    content = b"0123456789abcdef" * (2_000_000)
    try:
        new = NewJob(route="/trainings", path="/trainings", request=b"", keep=0.5)
        record = (await store.submit(new)).record
        await store.claim({"/trainings": 1}, 1)
        head = ResultHead(status=200, content_type="application/octet-stream", size=len(content))
        await store.finish(record.id, 1, head, content)
        in_memory: Any = store
        async with (
            job_service(train, store=in_memory) as service,
            serving(service.running) as server,
            server.client() as client,
        ):
            path = f"/trainings/{record.id}/result"
            client.send(get(path))
            await client.reader.readuntil(b"\r\n\r\n")
            assert await store.sweep(time.time() + 60) == 1
            assert await client.reader.readexactly(len(content)) == content
            for _ in range(2):
                assert (await client.ask(get(path))).status == 410
    finally:
        await store.aclose()
