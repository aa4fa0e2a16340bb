"""shadows.py: which requests are computed once more, and when a candidate is left alone; with a pool of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tinysvc import Artifact
from tinysvc.core.errors import DeadlineExceeded, PoolClosed, QueueFull, RemoteError, WorkerDied
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.pool.arena import BIG
from tinysvc.pool.frames import ErrorText
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.state import Job
from tinysvc.runtime.candidate_metrics import CandidateMetrics
from tinysvc.runtime.cpu_messages import ResponseHead, ShadowMessage, ShadowReply
from tinysvc.runtime.shadows import MOST_KILLS, Shadows
from tinysvc.telemetry.instruments import Registry


class OnePool:
    """Notes its jobs, and ends them as the test says."""

    def __init__(self) -> None:
        self.max_workers = 2
        self.idle = 2
        self.waiting = 0
        self.jobs: list[Job] = []
        self.abandoned: list[Job] = []
        self.refusal: Exception | None = None

    def worker_states(self) -> dict[str, int]:
        return {"idle": self.idle}

    def submit_job(self, job: Job) -> Job:
        if self.refusal is not None:
            raise self.refusal
        job.future = asyncio.get_running_loop().create_future()
        self.jobs.append(job)
        return job

    def abandon(self, job: Job, *, even_running: bool) -> None:
        assert even_running
        self.abandoned.append(job)


class Tried:
    artifact = Artifact("churn@candidate", shadow=1.0)
    version: int | None = 8


class Bench:
    def __init__(self) -> None:
        self.pool, self.tried, self.registry = OnePool(), Tried(), Registry()
        metrics = CandidateMetrics(self.registry).of("/", "churn@candidate")
        self.shadows = Shadows(self.pool, 5, self.tried, 2.0, metrics)  # type: ignore[arg-type]
        self.response = Response(b"served", 200, (), "text/plain")

    async def request(self, fraction: float = 1.0, **options: Any) -> Response:
        options["headers"] = Headers(options.get("headers", []))
        request = Request(**{"method": "POST", "raw_path": "/a", "raw_query": "b", "body": b"body", **options})
        response = await self.shadows.around(self.handler, fraction)(request)
        await asyncio.sleep(0)  # the shadow begins
        return response

    async def handler(self, request: Request) -> Response:
        assert await request.body() is not None
        return self.response

    async def end(self, outcome: Any) -> None:
        """The job that runs ends so."""
        future = self.pool.jobs[-1].future
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(JobReply(outcome, b""))
        while self.shadows._task is not None:
            await asyncio.sleep(0)

    def figures(self) -> dict[tuple[str, ...], float]:
        """Those that are not 0."""
        return {
            (metric.name.removeprefix("tinysvc.candidate."), *point.labels[2:]): value
            for metric in self.registry.snapshot()
            for point in metric.points
            if (value := sum(point.counts) if metric.kind == "histogram" else point.value)
        }


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.shadows.aclose()


@pytest.mark.asyncio
async def test_job_has_the_request_and_the_response(bench: Bench) -> None:
    bench.response.headers = [("Content-Encoding", "gzip")]
    assert await bench.request(id="my-id", headers=[(b"accept-encoding", b"gzip"), (b"x", b"y")]) is bench.response
    (job,) = bench.pool.jobs
    message = job.meta
    assert isinstance(message, ShadowMessage)
    assert (message.endpoint, message.size, message.content_type, message.coding) == (5, 4, "text/plain", "gzip")
    assert (message.request.method, message.request.path, message.request.query) == ("POST", "/a", "b")
    assert list(message.request.headers) == [(b"x", b"y")]
    assert message.headers == ()
    assert message.request.id == "my-id/shadow"
    assert (job.body, job.timeout) == (b"bodyserved", 2.0)


@pytest.mark.asyncio
async def test_end_of_a_shadow_is_counted(bench: Bench) -> None:
    await bench.request()
    await bench.end(ShadowReply(0.25, 200, 0.5))
    assert bench.figures() == {
        ("requests", "served", "ok"): 1,
        ("requests", "candidate", "ok"): 1,
        ("duration", "served"): 1,
        ("duration", "candidate"): 1,
        ("difference",): 1,
    }


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("path", "value"), [("pool.idle", 1), ("pool.waiting", 1), ("pool.max_workers", 3)], ids=["busy", "waiting", "big"]
)
async def test_shadow_needs_an_idle_worker_and_leaves_one(bench: Bench, path: str, value: int) -> None:
    setattr(bench.pool, path.partition(".")[2], value)
    await bench.request()
    skips = path != "pool.max_workers"
    assert (len(bench.pool.jobs), bench.figures().get(("skipped",), 0)) == (not skips, skips)


@pytest.mark.asyncio
async def test_pool_of_one_worker_has_shadows(bench: Bench) -> None:
    bench.pool.max_workers = bench.pool.idle = 1
    await bench.request()
    assert len(bench.pool.jobs) == 1


@pytest.mark.asyncio
async def test_one_shadow_runs_at_a_time(bench: Bench) -> None:
    await bench.request()
    await bench.request()
    assert len(bench.pool.jobs) == 1
    assert bench.figures()[("skipped",)] == 1
    await bench.end(ShadowReply(0.1, 200))
    await bench.request()
    assert len(bench.pool.jobs) == 2


@pytest.mark.asyncio
async def test_worker_that_a_request_has_taken_meanwhile_gets_no_shadow(bench: Bench) -> None:
    await bench.shadows.around(bench.handler, 1.0)(Request("GET", "/", body=b""))
    bench.pool.idle = 1
    await asyncio.sleep(0)
    assert (bench.pool.jobs, bench.figures()[("skipped",)]) == ([], 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("options", "response"),
    [
        ({}, Response(b"", 404)),
        ({}, Response(b"", 304)),
        ({}, Response(memoryview(b"big"))),
        ({"method": "HEAD"}, Response(b"")),
        ({"fraction": 0.0}, Response(b"")),
    ],
    ids=["error", "not modified", "big", "head", "not chosen"],
)
async def test_some_requests_have_no_shadow(bench: Bench, options: dict[str, Any], response: Response) -> None:
    bench.response = response
    assert await bench.request(**options) is response
    assert (bench.pool.jobs, bench.figures()) == ([], {})


@pytest.mark.asyncio
async def test_big_body_goes_to_the_handler_unread(bench: Bench) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"

    await bench.request(body=pieces(), headers=[(b"content-length", b"%d" % BIG)])
    assert bench.pool.jobs == []


@pytest.mark.asyncio
async def test_nothing_is_computed_without_a_candidate(bench: Bench) -> None:
    bench.tried.version = None
    await bench.request()
    assert bench.pool.jobs == []


@pytest.mark.asyncio
async def test_worker_without_the_candidate_is_no_failure(bench: Bench) -> None:
    await bench.request()
    await bench.end(ShadowReply(0.0, 0))
    assert ("requests", "candidate", "ok") not in bench.figures()
    assert bench.figures()[("skipped",)] == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [QueueFull("full", 1), PoolClosed("closed")])
async def test_refused_shadow_is_no_failure(bench: Bench, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    bench.pool.refusal = error
    await bench.request()
    await asyncio.sleep(0)
    assert not any("candidate" in labels for labels in bench.figures())
    assert caplog.text == ""


@pytest.mark.asyncio
async def test_each_failure_is_logged_once_for_a_version(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    failed = ShadowReply(0.1, 500, None, ErrorText("ValueError", "no number", "Traceback: ..."))
    wrong = ResponseHead(200, None, [])
    for reply in (failed, failed, RemoteError("OSError", "no file", ""), ShadowReply(0.1, 500), wrong):
        await bench.request()
        await bench.end(reply)
    bench.tried.version = 9
    await bench.request()
    await bench.end(failed)
    assert [record.getMessage().partition("\n")[0] for record in caplog.records] == [
        "the candidate churn@8 fails: ValueError: no number",
        "the candidate churn@8 fails: OSError: no file",
        "the candidate churn@8 fails: ValueError: the worker's reply to a shadow has the wrong form",
        "the candidate churn@9 fails: ValueError: no number",
    ]
    assert bench.figures()["requests", "candidate", "error"] == 6


@pytest.mark.asyncio
async def test_candidate_that_ends_workers_is_left_alone(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(MOST_KILLS):
        await bench.request()
        await bench.end(WorkerDied("the worker crashed") if number else DeadlineExceeded("it ran too long"))
    await bench.request()
    assert len(bench.pool.jobs) == MOST_KILLS
    assert (
        "the candidate churn@8 has ended 3 workers, and gets no more requests; the last time: the worker crashed"
        in (caplog.text)
    )
    bench.tried.version = 9
    await bench.request()
    assert len(bench.pool.jobs) == MOST_KILLS + 1


@pytest.mark.asyncio
async def test_close_ends_the_shadow_that_runs(bench: Bench) -> None:
    await bench.request()
    await bench.shadows.aclose()
    assert bench.pool.abandoned == bench.pool.jobs
