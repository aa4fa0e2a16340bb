"""The details of this server process: its workers and what they run, its recent errors, its problems.

Nothing here runs for a request, except for one that ends with an error.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from ..core.requests import Request
from ..core.tracebacks import one_line
from ..pool.state import WorkerStatus
from ..runtime.cpu_messages import BatchMessage, CallMessage, DurableMessage, RequestMessage, ShadowMessage
from ..runtime.process_metrics import resident_bytes
from ..runtime.running_service import RunningService
from ..telemetry.snapshots import Metric
from .details import ArtifactDetails, ErrorDetails, ProcessDetails, WorkerDetails, details_metric
from .growth import MemoryGrowth

ERRORS = 50
"""Errors that are kept: a page of them."""

LOOK = 5.0
"""Seconds between two measurements of the memory of a worker: each reads a file of /proc."""

BLOCKED = 60.0
"""Seconds in which a route that has blocked the event loop is named."""

MAX_ERROR_TEXT = 300
"""Characters of an error's message."""


class OwnProcess:
    """A source of metrics: see `Registry.add_source`.

    Args:
        running: The service.
    """

    def __init__(self, running: RunningService) -> None:
        self._running = running
        self._looked = 0.0
        self._blocked = "", 0.0
        self._seen: dict[tuple[str, int], WorkerSeen] = {}
        self._errors: deque[ErrorDetails] = deque(maxlen=ERRORS)

    def note_error(self, error: BaseException, request: Request, status: int) -> None:
        """A response with a status of 500 or more."""
        text = one_line(str(error).partition("\n")[0])[:MAX_ERROR_TEXT]
        kind = str(getattr(error, "type_name", "") or type(error).__name__)
        route = self._running.route_of(request)
        self._errors.append(ErrorDetails(time.time(), route, status, kind, text, request.id))

    def note_block(self, route: str) -> None:
        """A route blocks the event loop. Called in the thread of the watchdog."""
        self._blocked = route, monotonic()

    def metrics(self) -> Iterable[Metric]:
        yield details_metric(self.details())

    def details(self) -> ProcessDetails:
        """The details now."""
        now = monotonic()
        looks = now >= self._looked + 0.9 * LOOK
        if looks:
            self._looked = now
        seen: dict[tuple[str, int], WorkerSeen] = {}
        workers = []
        for pool in self._running.pools:
            for status in pool.workers():
                key = pool.name, status.number
                seen[key] = self._seen.get(key) or WorkerSeen()
                workers.append(self._worker(pool.name, status, seen[key], now, looks=looks))
        self._seen = seen
        blocker, since = self._blocked
        blocker = blocker if now - since < BLOCKED else ""
        problems, artifacts = self._problems(), self._artifacts(now)
        return ProcessDetails(os.getpid(), workers, list(self._errors), problems, artifacts, blocker)

    def _artifacts(self, now: float) -> list[ArtifactDetails]:
        swaps = self._running.swaps
        if swaps is None:
            return []
        ages = {reference: now - seen for reference, seen in swaps.artifacts.seen.items()}
        return [
            ArtifactDetails(reference, each["version"], ages.get(reference), each.get("problem", ""))
            for reference, each in swaps.status().items()
        ]

    def _worker(self, pool: str, status: WorkerStatus, seen: WorkerSeen, now: float, *, looks: bool) -> WorkerDetails:
        meta = None if status.job is None else status.job.meta
        runs = "" if meta is None else self._route_of_job(pool, meta)
        if looks:
            seen.look(now, status.pid, runs)
        growth, growth_time = seen.growth.steady()
        return WorkerDetails(
            process=os.getpid(),
            pool=pool,
            number=status.number,
            pid=status.pid,
            state=status.state,
            age=status.age,
            jobs=status.starts,
            is_replaced=status.is_replaced,
            runs=runs,
            request="" if meta is None else request_of_job(meta),
            running=status.job_age,
            memory=seen.memory,
            growth=growth,
            growth_time=growth_time,
            mostly=seen.mostly(),
            artifact=status.generation,
        )

    def _route_of_job(self, pool: str, meta: Any) -> str:
        plans = self._running.plans_of_pool.get(pool, [])
        sent = requests_of(meta)
        endpoint = sent[0].endpoint if sent else meta.endpoint if isinstance(meta, CallMessage) else -1
        if not 0 <= endpoint < len(plans):
            return "a job"
        plan = plans[endpoint]
        return f"{sent[0].method if sent else plan.route.methods[0]} {plan.path}"

    def _problems(self) -> list[str]:
        running = self._running
        found = [f"the resource {name} has ended" for name in sorted(running.lost_resources)]
        if running.durable is not None and running.durable.problem:
            found.append(f"the store of durable jobs: {running.durable.problem}")
        return found


def requests_of(meta: Any) -> Sequence[RequestMessage]:
    """The requests of a job: several of a batch, none of a call."""
    if isinstance(meta, BatchMessage):
        return meta.requests
    if isinstance(meta, (DurableMessage, ShadowMessage)):
        return (meta.request,)
    return (meta,) if isinstance(meta, RequestMessage) else ()


def request_of_job(meta: Any) -> str:
    """The id of the request that a job belongs to, or of the durable job."""
    if isinstance(meta, DurableMessage):
        return meta.job_id
    if isinstance(meta, CallMessage):
        return meta.caller
    sent = requests_of(meta)
    more = f" and {len(sent) - 1} more" if len(sent) > 1 else ""
    return f"{sent[0].id}{more}" if sent else ""


class WorkerSeen:
    """What was seen of one worker so far."""

    def __init__(self) -> None:
        self.growth = MemoryGrowth()
        self.memory = 0
        self._runs: Counter[str] = Counter()

    def look(self, now: float, pid: int, runs: str) -> None:
        """Measure the memory, and note what runs."""
        if runs:
            self._runs[runs] += 1
        if pid:
            with suppress(OSError):
                self.memory = resident_bytes(pid)
                self.growth.look(now, self.memory)

    def mostly(self) -> str:
        """The route that was seen most often; "" if there was none."""
        return self._runs.most_common(1)[0][0] if self._runs else ""
