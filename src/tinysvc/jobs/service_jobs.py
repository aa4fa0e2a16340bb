"""The durable jobs of one running service: a store, the runner of its attempts, and the requests of its job routes."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from ..core.job_errors import StoreError
from ..core.responses import Handler
from ..core.settings import Settings
from ..pool.state import Job
from ..runtime.durable_jobs import DurablePlace, EndedAttempt
from ..service.plan import Plan
from ..service.service import Service
from .attempts.runner import Runner
from .records import NewJob
from .requests.endpoints import JobEndpoints
from .requests.intake import Intake
from .requests.list_page import jobs_pages, shows_jobs_page
from .schedules import Scheduler, schedules_of
from .store import Store

log = logging.getLogger("tinysvc.jobs")

SWEEP = 60.0
"""Seconds between two removals of durable jobs whose retention is over."""


class ServiceJobs:
    """Implements `runtime/durable_jobs.py: DurableJobs`.

    Args:
        service: The service.
        settings: The server's settings.
        store: Its store, not yet open.
        owner: A name of this server process that no other one ever has.
    """

    def __init__(self, service: Service, settings: Settings, store: Store, owner: str) -> None:
        self.store = store
        self.on_attempt_end: Callable[[EndedAttempt], None] | None = None
        self._owner = owner
        self._service = service
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._routes: list[str] = []
        self._on_broken: Callable[[], None] = lambda: None
        self._ends: list[Callable[[], None]] = []  # each ends a callback of the store
        self._runner: Runner
        self._endpoints: JobEndpoints
        self._scheduler: Scheduler

    @property
    def problem(self) -> str:
        """Why the store cannot write now; "" if it can."""
        return self.store.problem or self._runner.problem

    async def open(self, stack: AsyncExitStack, places: Sequence[DurablePlace]) -> Sequence[int]:
        """Open the store."""
        name = self._service.name or places[0].plan.route.function.__module__
        await self.store.open(self._owner, name)
        stack.push_async_callback(self.store.aclose)
        self._routes = [place.plan.path for place in places]
        self._runner = Runner(self.store, places, self._settings.cpu_timeout)
        self._endpoints = JobEndpoints(self.store, self._settings, self._runner.cancel)
        schedules = schedules_of((place.plan for place in places), self._scheduled_job)
        self._scheduler = Scheduler(self.store, schedules)
        return self.store.inherited

    def _scheduled_job(self, plan: Plan) -> NewJob:
        return Intake(plan, self._settings).scheduled_job(secrets.token_hex(8))

    def post(self, place: DurablePlace) -> Handler:
        """The handler that accepts a durable job."""
        return self._endpoints.post(place.plan)

    def verbs(self, place: DurablePlace, once: Mapping[str, Any]) -> Sequence[tuple[str, Sequence[str], Handler]]:
        """The handlers of all other requests of the route."""
        return self._endpoints.verbs(place.plan, once)

    def pages(self) -> dict[str, Handler]:
        """The page `/jobs` and its data, if a setting asks for them."""
        return jobs_pages(self.store, self._routes) if shows_jobs_page(self._settings) else {}

    async def answer(self, job: Job, question: Any, body: bytes) -> tuple[Any, bytes]:
        """The answer to `job.save(...)` or `job.progress(...)`."""
        return await self._runner.answers.answer(job, question, body)

    async def counts(self, route: str) -> Mapping[str, int]:
        """How many durable jobs of a route are in each state."""
        return (await self.store.page(route, None, 1, "")).counts

    def start(self, on_broken: Callable[[], None]) -> None:
        """Begin to run attempts, to submit the jobs of schedules, and to remove expired jobs."""
        self._runner.on_attempt_end = self.on_attempt_end
        self._runner.start()
        self._on_broken = on_broken
        self._ends = [self.store.broken(self._break)]
        self._tasks = [asyncio.create_task(each) for each in (self._sweep(), self._scheduler.run())]

    def pause(self) -> None:
        """Begin no further attempt, and let no request wait for the end of one."""
        self._runner.pause()
        self._endpoints.pause()
        for task in self._tasks:
            task.cancel()

    def _break(self, reason: str) -> None:
        log.critical("the store of durable jobs has closed itself, and the server ends: %s", reason)
        self._on_broken()

    async def drain(self, timeout: float) -> None:
        """Let the attempts end within `timeout` seconds; kill the others."""
        self.pause()
        await self._runner.drain(timeout)
        while self._ends:
            self._ends.pop()()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                await self.store.sweep(time.time())
            except StoreError as error:
                log.warning("expired durable jobs were not removed, and stay until the next try: %s", error)
