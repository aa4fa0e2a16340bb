"""durable_jobs.py: a running service opens, starts and drains the durable jobs of its job routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tinysvc import ConfigurationError, Request, Response, Service, io_route, job_route
from tinysvc.core.responses import Handler
from tinysvc.core.settings import Settings
from tinysvc.pool.state import Job
from tinysvc.runtime.durable_jobs import DurablePlace, EndedAttempt
from tinysvc.runtime.running_service import at_work


@job_route("/trainings")
def train() -> None: ...


class NotedJobs:
    """Notes what a running service asks of its durable jobs."""

    problem = ""
    on_attempt_end: Callable[[EndedAttempt], None] | None = None

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.places: Sequence[DurablePlace] = ()

    async def open(self, stack: AsyncExitStack, places: Sequence[DurablePlace]) -> Sequence[int]:
        assert places[0].pool.ready == 0, "the workers inherit what is open before they start"
        self.noted.append("open")
        self.places = places
        stack.callback(self.noted.append, "closed")
        return ()

    def post(self, place: DurablePlace) -> Handler:
        return _responds("accepted")

    def verbs(self, place: DurablePlace, once: Mapping[str, Any]) -> Sequence[tuple[str, Sequence[str], Handler]]:
        return [(f"{place.plan.path}/{{job_id}}", ("GET", "DELETE"), _responds("one job"))]

    def pages(self) -> dict[str, Handler]:
        return {"/jobs": _responds("page"), "/own": _responds("hidden")}

    async def answer(self, job: Job, question: Any, body: bytes) -> tuple[Any, bytes]:
        raise AssertionError("no job asks")

    async def counts(self, route: str) -> Mapping[str, int]:
        return {}

    def start(self, on_broken: Callable[[], None]) -> None:
        self.on_broken = on_broken
        self.noted.append("start")

    def pause(self) -> None:
        self.noted.append("pause")

    async def drain(self, timeout: float) -> None:
        self.noted.append("drain")


def _responds(text: str) -> Handler:
    async def handle(request: Request) -> Response:
        return Response(text.encode())

    return handle


@io_route("/own")
async def own() -> Response:
    return Response(b"of the service")


@pytest.mark.asyncio
async def test_job_route_is_served_by_the_durable_jobs() -> None:
    jobs = NotedJobs()
    async with at_work(Service(train, own), Settings(cpu_workers=1), None, lambda *_: jobs) as running:
        wanted = [
            ("POST", "/trainings", "accepted"),
            ("GET", "/trainings/1", "one job"),
            ("DELETE", "/trainings/1", "one job"),
            ("GET", "/jobs", "page"),
            ("GET", "/own", "of the service"),
        ]
        for method, path, text in wanted:
            response = await running(Request(method, path))
            assert (response.status, response.content) == (200, text.encode()), (method, path)
        assert running.route_of(Request("GET", "/trainings/1")) == "GET /trainings/{job_id}"
        (place,) = jobs.places
        assert (place.pool, place.number, place.shares_pool) == (running.pools[0], 0, False)
    assert jobs.noted == ["open", "start", "drain", "closed"]


@pytest.mark.asyncio
async def test_middleware_guards_all_requests_of_a_job_route() -> None:
    async def guard(request: Request, call_next: Handler) -> Response:
        return Response("no", 401)

    service = Service(train, middleware=[guard])
    async with at_work(service, Settings(cpu_workers=1), None, lambda *_: NotedJobs()) as running:
        for method, path in [("POST", "/trainings"), ("GET", "/trainings/1"), ("GET", "/jobs")]:
            assert (await running(Request(method, path))).status == 401


@pytest.mark.asyncio
async def test_service_without_job_route_makes_no_durable_jobs() -> None:
    def make(*_: object) -> NotedJobs:
        raise AssertionError

    async with at_work(Service(own), Settings(), None, make) as running:
        assert running.durable is None


@pytest.mark.asyncio
async def test_job_route_without_a_server_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has @job_route, which only a Server can serve"):
        async with at_work(Service(train), Settings(cpu_workers=1)):
            pass


@pytest.mark.asyncio
async def test_service_whose_store_has_closed_itself_is_not_ready() -> None:
    jobs, called = NotedJobs(), list[str]()
    async with at_work(Service(train), Settings(cpu_workers=1), None, lambda *_: jobs) as running:
        running.on_broken = lambda: called.append("broken")
        assert running.is_ready()
        jobs.on_broken()
        assert (running.is_ready(), called) == (False, ["broken"])
