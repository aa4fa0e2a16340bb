"""Durable jobs, as a running service knows them: the room `jobs`, which is above this one, implements them.

open      before the pools start: the store opens, and workers inherit its descriptors
start     when everything is open: attempts begin
pause     at the beginning of a drain: no further attempt begins
drain     the running attempts end, or are killed and released; the store closes with the service
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..core.responses import Handler
from ..service.plan import Plan

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from ..pool.state import Job, Lane
    from .traced_jobs import TracedJobs


class DurablePlace(NamedTuple):
    """A job route, and where its attempts run."""

    plan: Plan
    pool: ProcessPoolExecutor | ExternalPool
    number: int
    """The position of its endpoint in the program of the pool."""
    lane: Lane | None
    """Limits its workers, by the `limit` of the route."""
    shares_pool: bool
    """Cpu routes use the pool, too."""
    tracing: TracedJobs | None = None
    """Records its attempts; None: they are not recorded."""

    def submit_job(self, job: Job) -> Job:
        """Give an attempt to the pool, as its own `submit_job` does."""
        submit = self.pool.submit_job
        return submit(job) if self.tracing is None else self.tracing.around(submit)(job)


class EndedAttempt(NamedTuple):
    """An attempt of a durable job that has ended in this server process."""

    route: str
    """Its path pattern."""
    cause: str
    """See jobs/records.py: CAUSES."""
    waited: float
    """Seconds from the time at which the durable job was due to the start of the attempt."""
    ran: float
    """Seconds of the attempt."""


class DurableJobs(Protocol):
    """The durable jobs of one running service. `on_attempt_end` is called at each end of an attempt, if it is set."""

    on_attempt_end: Callable[[EndedAttempt], None] | None

    @property
    def problem(self) -> str:
        """Why the store cannot write now; "" if it can."""

    async def open(self, stack: AsyncExitStack, places: Sequence[DurablePlace]) -> Sequence[int]:
        """Open the store; `stack` closes it. Returns the descriptors that the workers inherit.

        Raises:
            ConfigurationError: The store must not be used.
        """

    def post(self, place: DurablePlace) -> Handler:
        """The innermost handler of the route, in place of that of a cpu route: it accepts a durable job."""

    def verbs(self, place: DurablePlace, once: Mapping[str, Any]) -> Sequence[tuple[str, Sequence[str], Handler]]:
        """Path, methods and handler of each further request that the route serves.

        Args:
            place: The route.
            once: Values of the resources that are open for the whole server.
        """

    def pages(self) -> dict[str, Handler]:
        """Handlers for GET, by path, where the service itself has no route."""

    async def answer(self, job: Job, question: Any, body: bytes) -> tuple[Any, bytes]:
        """The answer to a question of an attempt that runs as `job`."""

    async def counts(self, route: str) -> Mapping[str, int]:
        """How many durable jobs of a route are in each state, in the whole store. StoreError if it cannot be read."""

    def start(self, on_broken: Callable[[], None]) -> None:
        """Begin to run attempts. `on_broken` is called if the store has closed itself for good."""

    def pause(self) -> None:
        """Begin no further attempt."""

    async def drain(self, timeout: float) -> None:
        """Let the attempts end within `timeout` seconds; kill the others, which do not count."""
