"""Services with job routes over a store in memory, without a runner: a test runs the attempts by itself."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from memory_store import MemoryStore
from tinysvc import HTTPError, Pool, Request, Response, Service
from tinysvc.binding.results import encode_result
from tinysvc.core.headers import Headers
from tinysvc.core.responses import Handler
from tinysvc.core.settings import Settings
from tinysvc.jobs.records import Change, Claimed, Failure, Record, ResultHead
from tinysvc.jobs.requests.endpoints import JobEndpoints
from tinysvc.jobs.stored_request import decode_request
from tinysvc.pool.state import Job
from tinysvc.runtime.durable_jobs import DurablePlace, EndedAttempt
from tinysvc.runtime.running_service import RunningService, at_work
from tinysvc.service.plan import Plan


class JobsWithoutRunner:
    """Durable jobs that are accepted, and never run by themselves."""

    problem = ""
    on_attempt_end: Callable[[EndedAttempt], None] | None = None

    def __init__(self, store: MemoryStore, settings: Settings) -> None:
        self.store = store
        self.endpoints = JobEndpoints(store, settings, store.cancel)
        self.plans: dict[str, Plan] = {}

    async def open(self, stack: AsyncExitStack, places: Sequence[DurablePlace]) -> Sequence[int]:
        self.plans = {place.plan.path: place.plan for place in places}
        return ()

    def post(self, place: DurablePlace) -> Handler:
        return self.endpoints.post(place.plan)

    def verbs(self, place: DurablePlace, once: Mapping[str, Any]) -> Sequence[tuple[str, Sequence[str], Handler]]:
        return self.endpoints.verbs(place.plan, once)

    def pages(self) -> dict[str, Handler]:
        return {}

    async def answer(self, job: Job, question: Any, body: bytes) -> tuple[Any, bytes]:
        raise AssertionError("no job asks")

    async def counts(self, route: str) -> Mapping[str, int]:
        return (await self.store.page(route, None, 1, "")).counts

    def start(self, on_broken: Callable[[], None]) -> None: ...

    def pause(self) -> None: ...

    async def drain(self, timeout: float) -> None: ...


class JobsOnTheLoop(JobsWithoutRunner):
    """Durable jobs that run on the event loop as soon as they are accepted. None is tried again."""

    def start(self, on_broken: Callable[[], None]) -> None:
        self.store.watch(self.changed)

    def changed(self, change: Change) -> None:
        if change.state == "queued":
            task = asyncio.get_running_loop().create_task(self.run_all())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def run_all(self) -> None:
        for claimed in await self.store.claim(dict.fromkeys(self.plans, 100), 100):
            record, stored = claimed.record, decode_request(claimed.request)
            binder = self.plans[record.route].binder
            request = Request(
                stored.method, stored.path, stored.query, Headers(stored.headers), claimed.body, stored.path_params
            )
            values = pickle.loads(stored.resources) if stored.resources else {}
            try:
                response = encode_result(binder.function(**binder.bind(request, claimed.body, values)))
            except Exception as error:
                problem = {"type": "urn:tinysvc:job-failed", "status": 500, "title": "Internal Server Error"}
                problem = error.problem() if isinstance(error, HTTPError) else problem
                await self.store.fail(record.id, record.attempt, Failure("error", repr(error), problem=problem))
                continue
            status, kind, lines = response.status, response.content_type, list(response.headers)
            head = ResultHead(status=status, content_type=kind, headers=lines, size=len(response.content))
            await self.store.finish(record.id, record.attempt, head, response.content)


tasks: set[asyncio.Task[None]] = set()


class JobService:
    """A running service with job routes, and its store."""

    def __init__(self, running: RunningService, store: MemoryStore, jobs: JobsWithoutRunner) -> None:
        self.running = running
        self.jobs = jobs
        self.store = store

    async def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """The response to a request."""
        path, _, query = target.partition("?")
        lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        return await self.running(Request(method, path, query, Headers(lines), body))

    async def post(self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The document of a new durable job."""
        response = await self.send("POST", path, body, headers)
        assert response.status == 202, response.content
        return document(response)

    async def claim(self) -> Claimed:
        """Start the next attempt of the only durable job that waits."""
        routes = {record.route: 1 for record in self.store.records.values()}
        (claimed,) = await self.store.claim(routes, 1)
        return claimed

    async def succeed(
        self, body: bytes = b'{"loss":0}', status: int = 200, content_type: str = "application/json"
    ) -> Record:
        """Run the only durable job that waits, with this result."""
        record = (await self.claim()).record
        head = ResultHead(status=status, content_type=content_type, headers=[("x-own", "1")], size=len(body))
        assert await self.store.finish(record.id, record.attempt, head, body)
        return self.store.records[record.id]

    async def fail(self, problem: dict[str, Any] | None) -> Record:
        """Run the only durable job that waits, and let it fail."""
        record = (await self.claim()).record
        assert await self.store.fail(record.id, record.attempt, Failure("error", "it failed", problem=problem))
        return self.store.records[record.id]


@asynccontextmanager
async def job_service(
    *parts: Any,
    store: MemoryStore | None = None,
    runs: bool = False,
    pools: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[JobService]:
    """Serve a service of these functions while the block runs; `runs`: with durable jobs that run on the event loop."""
    store = store or MemoryStore()
    given = Settings(cpu_workers=0, pools={name: Pool() for name in pools}, **settings or {})
    jobs = (JobsOnTheLoop if runs else JobsWithoutRunner)(store, given)
    async with at_work(Service(*parts, **options), given, make_durable=lambda *_: jobs) as running:
        yield JobService(running, store, jobs)


def document(response: Response) -> dict[str, Any]:
    """The JSON of a response."""
    found: dict[str, Any] = json.loads(response.content)
    return found


def header(response: Response, name: str) -> str:
    """A header of a response; "" if it has none."""
    return dict(response.headers).get(name, "")
