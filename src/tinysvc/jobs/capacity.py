"""How many attempts may begin: the workers of each pool, the limits of the routes, and a worker left for requests.

Short attempts are claimed ahead: otherwise each worker would be idle during one commit
for each of them. They wait in the queue of the pool. Where a long one runs or waits, none is claimed ahead of its turn.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from ..runtime.durable_jobs import DurablePlace

log = logging.getLogger("tinysvc.jobs")

AHEAD = 0.02
"""Seconds of work that may be claimed ahead, and the longest attempt that counts as short: a commit takes about as long
on a slow disk."""

MOST_AHEAD = 64
"""Attempts that may be claimed ahead in a pool."""


class Capacity:
    """The room for attempts in the pools of one server process.

    In a pool that serves cpu routes, too, durable jobs hold all workers but one: a request does not wait for an hour.

    Args:
        places: The job routes.
    """

    def __init__(self, places: Sequence[DurablePlace]) -> None:
        self.pools = list({place.pool: None for place in places})
        self._places = places
        self._means: dict[str, float] = {}  # seconds of an attempt, by route
        for pool in {place.pool: None for place in places if place.shares_pool and place.pool.max_workers == 1}:
            log.warning(
                "the pool %s has one worker, for cpu routes and for durable jobs: requests wait while a durable job "
                'runs; give its route a pool of its own, as in @job_route(..., pool="jobs"), or add a worker',
                pool.name,
            )

    def note(self, path: str, seconds: float) -> None:
        """An attempt of the route has run for so long."""
        mean = self._means.get(path)
        self._means[path] = seconds if mean is None else mean + (seconds - mean) / 10

    def free(
        self, pool: object, wanted: Collection[str], running: Iterable[DurablePlace], *, is_slow: bool = False
    ) -> tuple[dict[str, int], int]:
        """How many attempts may begin now in a pool: for each of the wanted routes, and together.

        Args:
            pool: The pool.
            wanted: Paths of routes.
            running: The place of each attempt at work.
            is_slow: One of them takes longer than its route usually does.
        """
        mine = [place for place in self._places if place.pool is pool]
        at_work = Counter(place.plan.path for place in running if place.pool is pool)
        total = self.share(mine[0]) - at_work.total()
        asked = [place for place in mine if place.plan.path in wanted]
        if not is_slow and not mine[0].shares_pool:
            total += self._ahead(asked, at_work)
        free: dict[str, int] = {}
        for path, limit in ((place.plan.path, place.plan.route.limit) for place in asked):
            left = total if limit is None else min(total, limit - at_work[path])
            if left > 0:
                free[path] = left
        return free, total

    def share(self, place: DurablePlace) -> int:
        """The workers of its pool that durable jobs may hold."""
        workers = place.pool.max_workers
        return max(1, workers - 1) if place.shares_pool else workers

    def _ahead(self, asked: Sequence[DurablePlace], at_work: Collection[str]) -> int:
        """How many may be claimed beyond the workers: none unless all that run or may begin are short."""
        paths = {*at_work, *(place.plan.path for place in asked)}
        longest = max((self._means.get(path, AHEAD) for path in paths), default=AHEAD)
        if not asked or any(place.plan.route.limit is not None for place in asked):
            return 0
        return max(0, min(MOST_AHEAD, int(asked[0].pool.max_workers * (AHEAD / max(longest, 0.0001) - 1))))
