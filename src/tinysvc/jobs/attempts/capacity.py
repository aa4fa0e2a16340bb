"""How many attempts may begin: the workers of each pool, the limits of the routes, and a worker left for requests.

Short attempts are claimed ahead: otherwise each worker would be idle during one commit for each of them. They wait in
the queue of the pool. A long one takes a worker as soon as one is free, before further short ones.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from ...core.units import MiB
from ...runtime.durable_jobs import DurablePlace

log = logging.getLogger("tinysvc.jobs")

AHEAD = 0.02
"""Seconds of work that may be claimed ahead, and the longest attempt that counts as short: a commit takes about as long
on a slow disk."""

MOST_AHEAD = 64
"""Attempts that may be claimed ahead in a pool."""


AHEAD_BYTES = 8 * MiB
"""Bytes of requests and saved values that may be in memory for attempts that are claimed ahead."""


class Usual(NamedTuple):
    """The time and memory that attempts of a route usually need; moving averages."""

    seconds: float
    size: float
    """Bytes of the request's body and the saved value."""


class Placed(Protocol):
    """An attempt at work."""

    @property
    def place(self) -> DurablePlace: ...

    @property
    def is_slow(self) -> bool:
        """It takes longer than its route usually does."""


class Capacity:
    """The room for attempts in the pools of one server process.

    In a pool that serves cpu routes, too, durable jobs hold all workers but one: a request does not wait for an hour.

    Args:
        places: The job routes.
    """

    def __init__(self, places: Sequence[DurablePlace]) -> None:
        self.pools = list({place.pool: None for place in places})
        self._places = places
        self._means: dict[str, Usual] = {}  # by route
        for pool in {place.pool: None for place in places if place.shares_pool and place.pool.max_workers == 1}:
            log.warning(
                "the pool %s has one worker, for cpu routes and for durable jobs: requests wait while a durable job "
                'runs; give its route a pool of its own, as in @job_route(..., pool="jobs"), or add a worker',
                pool.name,
            )

    def note(self, path: str, seconds: float, size: int = 0) -> None:
        """An attempt of the route has run for so long, and its durable job has `size` bytes."""
        known = self._means.get(path)
        if known is None:
            self._means[path] = Usual(seconds, size)
        else:
            self._means[path] = Usual(
                known.seconds + (seconds - known.seconds) / 10, known.size + (size - known.size) / 10
            )

    def share(self, place: DurablePlace) -> int:
        """The workers of its pool that durable jobs may hold."""
        workers = place.pool.max_workers
        return max(1, workers - 1) if place.shares_pool else workers

    def free(self, pool: object, wanted: Collection[str], running: Iterable[Placed]) -> tuple[dict[str, int], int]:
        """How many attempts may begin now in a pool: for each of the wanted routes, and together.

        Args:
            pool: The pool.
            wanted: Paths of routes.
            running: The attempts at work.
        """
        mine = [place for place in self._places if place.pool is pool]
        at_work = [each for each in running if each.place.pool is pool]
        share = self.share(mine[0])
        left = share - len(at_work)
        asked = [place for place in mine if place.plan.path in wanted]
        short = [place for place in asked if self._is_short(place)]
        if left <= 0 and len(short) < len(asked):
            return {}, 0  # a long one may wait, and begins before more short ones are claimed
        long_at_work = sum(each.is_slow or not self._is_short(each.place) for each in at_work)
        ahead = self._ahead(short, share - long_at_work)
        of_route = Counter(each.place.plan.path for each in at_work)
        free: dict[str, int] = {}
        for place in asked:
            path, limit = place.plan.path, place.plan.route.limit
            room = left + ahead if place in short else left if limit is None else min(left, limit - of_route[path])
            if room > 0:
                free[path] = room
        return free, left + ahead

    def _is_short(self, place: DurablePlace) -> bool:
        """Whether its attempts may be claimed ahead. One that may start once only must not be lost while it waits."""
        known, route = self._means.get(place.plan.path), place.plan.route
        is_known = known is not None and known.seconds < AHEAD
        has_more_attempts = route.durable is None or route.durable.retry.attempts > 1
        return is_known and has_more_attempts and not place.shares_pool and route.limit is None

    def _ahead(self, short: Sequence[DurablePlace], workers: int) -> int:
        """How many of these routes may be claimed beyond the workers that will run them."""
        if not short or workers <= 0:
            return 0
        known = [self._means[place.plan.path] for place in short]
        longest, largest = max(each.seconds for each in known), max(each.size for each in known)
        by_time = workers * (AHEAD / max(longest, 0.0001) - 1)
        return int(min(MOST_AHEAD, by_time, AHEAD_BYTES / max(largest, 1)))
