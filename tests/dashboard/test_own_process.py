"""own_process.py: what this server process knows of its workers and errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import models_app
from swap_pools import publish, store_in
from system import until
from tinysvc import HTTPError, Request, Service, cpu_route, io_route
from tinysvc.core.settings import Settings
from tinysvc.dashboard import own_process as module
from tinysvc.dashboard.own_process import ERRORS, MAX_ERROR_TEXT, OwnProcess, WorkerSeen
from tinysvc.runtime.cpu_messages import BatchMessage, CallMessage, DurableMessage, RequestMessage, ShadowMessage
from tinysvc.runtime.running_service import at_work

pytestmark = pytest.mark.asyncio


@io_route("/page/{number}")
async def page(number: int) -> int:
    return number


@cpu_route("/score/{number}")
def score(number: int) -> int:
    return number


async def test_workers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.0)
    async with at_work(Service(page, score), Settings(cpu_workers=1)) as running:
        own = OwnProcess(running)
        response = await running.handle(Request("GET", "/score/3"))
        assert response.content == b"3"
        details = own.details()
        (worker,) = details.workers
        assert (details.process, worker.process) == (os.getpid(), os.getpid())
        assert (worker.pool, worker.number, worker.state, worker.jobs) == ("default", 1, "idle", 1)
        assert worker.memory > 1_000_000
        assert (worker.runs, worker.running, details.problems) == ("", 0.0, [])
        running.lost_resources.add("database")
        assert own.details().problems == ["the resource database has ended"]
        (metric,) = own.metrics()
        assert metric.name == "tinysvc.dashboard.details"


async def test_artifacts_and_their_workers_are_named(tmp_path: Path) -> None:
    publish(store_in(tmp_path), content="1")
    settings = Settings(models=str(tmp_path / "models"), models_interval=0.01, cpu_workers=1)
    async with at_work(models_app.service, settings) as running:
        own = OwnProcess(running)
        await until(lambda: own.details().artifacts[0].age is not None)
        details = own.details()
        assert [(each.artifact, each.version, each.problem) for each in details.artifacts] == [
            ("churn@production", 1, "")
        ]
        assert [worker.artifact for worker in details.workers] == ["churn@1"]


async def test_errors_have_their_route_and_request() -> None:
    async with at_work(Service(page), Settings()) as running:
        own = OwnProcess(running)
        running.on_error = own.note_error
        request = Request("GET", "/page/1", id="my-id")
        own.note_error(ValueError("first line\nsecond"), request, 500)
        own.note_error(HTTPError(503, "x" * 999), Request("GET", "/none"), 503)
        first, second = own.details().errors
        assert (first.route, first.error, first.text, first.request) == (
            "GET /page/{number}",
            "ValueError",
            "first line",
            "my-id",
        )
        assert (second.route, len(second.text)) == ("", MAX_ERROR_TEXT)
        for _ in range(2 * ERRORS):
            own.note_error(ValueError("x"), request, 500)
        assert len(own.details().errors) == ERRORS


async def test_service_reports_errors_from_500_on_only() -> None:
    async with at_work(Service(page), Settings()) as running:
        seen: list[int] = []
        running.on_error = lambda error, request, status: seen.append(status)
        assert (await running.handle(Request("GET", "/page/x"))).status == 422
        assert (await running.handle(Request("GET", "/none"))).status == 404
        assert seen == []


def sent(request_id: str) -> RequestMessage:
    return RequestMessage(0, "GET", "/", "", None, (), Request("GET", "/").peer, request_id, None)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (sent("one"), "one"),
        (BatchMessage(0, [sent("one")], [0]), "one"),
        (BatchMessage(0, [sent("one"), sent("two")], [0, 0]), "one and 1 more"),
        (DurableMessage(sent("one"), "durable", 1, 0, False), "durable"),
        (ShadowMessage(sent("one"), 0, None), "one"),
        (CallMessage(0, [], "one"), "one"),
        (object(), ""),
    ],
)
async def test_job_names_its_request(meta: Any, expected: str) -> None:
    assert module.request_of_job(meta) == expected


async def test_worker_is_seen_with_its_most_frequent_route() -> None:
    seen = WorkerSeen()
    assert seen.mostly() == ""
    for route in ("GET /a", "GET /b", "GET /b", ""):
        seen.look(0.0, 0, route)
    assert seen.mostly() == "GET /b"
    seen.look(0.0, 2**30, "")  # it has ended
    assert seen.memory == 0
