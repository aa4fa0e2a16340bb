"""Jobs of a candidate with `shadow`: requests are computed once more, after their clients have got the response.

Clients must notice nothing. So such a job starts only if a worker is idle, and another one stays idle (a pool of one
worker has no other one); one runs at a time; and a big request, a stream or an error is not computed again. The job has
the deadline of its route. A candidate whose jobs end their workers is left alone after MOST_KILLS of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from ..core.errors import DeadlineExceeded, PoolError, RemoteError, WorkerDied
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..pool.arena import BIG
from ..pool.state import Job
from .cpu_messages import RequestMessage, ShadowMessage, ShadowReply
from .pool_metrics import outcome_name

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..models.artifact import Artifact
    from ..pool.external import ExternalPool
    from .candidate_metrics import VariantMetrics

log = logging.getLogger("tinysvc.models")

MOST_KILLS = 3
"""Workers that one version of a candidate may end by a crash or at a deadline."""

NOT_ITS_FAULT = frozenset({"closed", "queue_full", "refused", "abandoned"})
"""Outcomes of jobs that say nothing about a candidate."""


class Tried(Protocol):
    """A candidate."""

    artifact: Artifact

    @property
    def version(self) -> int | None:
        """Its version; None if there is nothing to try."""


class Shadows:
    """The jobs of one route.

    Args:
        pool: The pool of the route.
        number: The position of the candidate's endpoint in the program.
        variants: The candidate.
        timeout: Seconds that a job may take.
        metrics: Takes the figures.
    """

    def __init__(
        self,
        pool: ProcessPoolExecutor | ExternalPool,
        number: int,
        variants: Tried,
        timeout: float | None,
        metrics: VariantMetrics,
    ) -> None:
        self._pool = pool
        self._number = number
        self._variants = variants
        self._timeout = timeout
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._kills: dict[int, int] = {}  # by version; only the present one's matter
        self._known_failures: set[tuple[int, str]] = set()  # that the log has

    def around(self, handler: Handler, fraction: float) -> Handler:
        """`handler`, a fraction of whose requests are computed by the candidate, too."""

        async def handle(request: Request) -> Response:
            if random.random() >= fraction or self._version() is None or not _is_small(request):
                return await handler(request)
            body = await request.body()  # the handler takes it from the request
            began = monotonic()
            response = await handler(request)
            if 200 <= response.status < 300 and type(response.content) is bytes and request.method != "HEAD":
                self._begin(request, body, response, monotonic() - began)
            return response

        return handle

    def _version(self) -> int | None:
        version = self._variants.version
        return None if version is None or self._kills.get(version, 0) >= MOST_KILLS else version

    def _begin(self, request: Request, body: bytes, response: Response, seconds: float) -> None:
        version = self._version()
        if version is None:
            return
        if self._task is not None or not self._has_spare_worker():
            self._metrics.skipped.add()
            return
        message = ShadowMessage(
            RequestMessage(
                self._number,
                request.method,
                request.raw_path,
                request.raw_query,
                request.path_params,
                [line for line in request.headers.raw if line[0] != b"accept-encoding"],
                request.peer._replace(upgrade=None),
                f"{request.id}/shadow",  # in the log lines of the handler
                request.resources,
                None if self._timeout is None else monotonic() + self._timeout,
            ),
            len(body),
            response.content_type,
            next((value for name, value in response.headers if name.lower() == "content-encoding"), ""),
        )
        job = Job(message, body + response.content, self._timeout)
        self._task = asyncio.create_task(self._run(job, version, seconds))

    def _has_spare_worker(self) -> bool:
        idle = self._pool.worker_states().get("idle", 0)
        return not self._pool.waiting and idle >= min(2, self._pool.max_workers)

    async def _run(self, job: Job, version: int, seconds: float) -> None:
        """Run the job. `seconds`: those of the response."""
        began = monotonic()
        try:
            if not self._has_spare_worker():  # a request has come meanwhile
                self._metrics.skipped.add()
                return
            self._pool.submit_job(job)
            reply = await job.future
            if type(reply.meta) is not ShadowReply:
                raise RemoteError("ValueError", "the worker's reply to a shadow has the wrong form", "")
            self._note(reply.meta, version, seconds)
        except asyncio.CancelledError:
            self._pool.abandon(job, even_running=True)
            raise
        except PoolError as error:
            self._note_error(error, version, seconds, monotonic() - began)
        finally:
            self._task = None

    def _note(self, reply: ShadowReply, version: int, seconds: float) -> None:
        if not reply.status:  # this worker does not have the candidate yet, or no more
            self._metrics.skipped.add()
            return
        is_failed = reply.status >= 500
        self._metrics.served.end("ok", seconds)
        self._metrics.candidate.end("error" if is_failed else "ok", reply.seconds)
        if reply.difference is not None:
            self._metrics.differences.observe(reply.difference)
        if reply.failure is not None:
            text = f"{reply.failure.type_name}: {reply.failure.message}"
            what = "the candidate %s@%d fails" if is_failed else "compare of the candidate %s@%d fails"
            self._warn(
                version, f"{what}: %s%s", text, f"\n{reply.failure.traceback}" if reply.failure.traceback else ""
            )

    def _note_error(self, error: PoolError, version: int, seconds: float, took: float) -> None:
        outcome = outcome_name(error)
        if outcome in NOT_ITS_FAULT:
            return
        self._metrics.served.end("ok", seconds)
        self._metrics.candidate.end(outcome, took)
        if isinstance(error, (WorkerDied, DeadlineExceeded)):
            self._kills[version] = self._kills.get(version, 0) + 1
            if self._kills[version] == MOST_KILLS:
                log.error(
                    "the candidate %s@%d has ended %d workers, and gets no more requests; the last time: %s",
                    self._name,
                    version,
                    MOST_KILLS,
                    error,
                )
                return
        self._warn(version, "the candidate %s@%d fails: %s%s", str(error), "")

    @property
    def _name(self) -> str:
        return self._variants.artifact.reference.partition("@")[0]

    def _warn(self, version: int, line: str, text: str, rest: str) -> None:
        """Log a failure; each one once for a version."""
        if len(self._known_failures) < 100 and (version, text) not in self._known_failures:
            self._known_failures.add((version, text))
            log.warning(line, self._name, version, text, rest)

    async def aclose(self) -> None:
        """End the job that runs."""
        if (task := self._task) is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _is_small(request: Request) -> bool:
    """Whether the body need not be in an arena: a job of its own would need another one."""
    return request.has_arrived or int(request.headers.get("content-length", BIG)) < BIG
