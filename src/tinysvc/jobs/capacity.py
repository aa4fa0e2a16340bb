"""How many attempts may begin: the workers of each pool, the limits of the routes, and a worker left for requests."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from ..runtime.durable_jobs import DurablePlace

log = logging.getLogger("tinysvc.jobs")


class Capacity:
    """The room for attempts in the pools of one server process.

    In a pool that serves cpu routes, too, durable jobs hold all workers but one: a request does not wait for an hour.

    Args:
        places: The job routes.
    """

    def __init__(self, places: Sequence[DurablePlace]) -> None:
        self.pools = list({place.pool: None for place in places})
        self._places = places
        for pool in {place.pool: None for place in places if place.shares_pool and place.pool.max_workers == 1}:
            log.warning(
                "the pool %s has one worker, for cpu routes and for durable jobs: requests wait while a durable job "
                'runs; give its route a pool of its own, as in @job_route(..., pool="jobs"), or add a worker',
                pool.name,
            )

    def free(
        self, pool: object, wanted: Collection[str], running: Iterable[DurablePlace]
    ) -> tuple[dict[str, int], int]:
        """How many attempts may begin now in a pool: for each of the wanted routes, and together.

        Args:
            pool: The pool.
            wanted: Paths of routes.
            running: The place of each attempt at work.
        """
        mine = [place for place in self._places if place.pool is pool]
        at_work = Counter(place.plan.path for place in running if place.pool is pool)
        workers = mine[0].pool.max_workers
        share = max(1, workers - 1) if mine[0].shares_pool else workers
        total = share - at_work.total()
        free: dict[str, int] = {}
        for path, limit in ((place.plan.path, place.plan.route.limit) for place in mine):
            left = total if limit is None else min(total, limit - at_work[path])
            if path in wanted and left > 0:
                free[path] = left
        return free, total
