"""The readings of the last quarter of an hour, and the changes between two of them.

A reading is kept for each second of the last SECONDS, and for each STEP before. So a window of a minute has both ends,
and a chart has CHART points, whatever the rate of requests is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from .reading import CandidateTotals, PoolTotals, Reading, RouteTotals, ServiceTotals, Times, VariantTotals

STEP = 5.0
"""Seconds between two points of a chart: as fine as a chart of 180 pixels shows."""

CHART = 180
"""Points of a chart: 15 minutes."""

SECONDS = 12
"""Newest readings that are kept whatever their distance: those of a window of ten seconds."""


class History:
    """The readings, oldest first."""

    def __init__(self) -> None:
        self._coarse: deque[Reading] = deque(maxlen=CHART + 1)
        self._fine: deque[Reading] = deque(maxlen=SECONDS)
        self.charted = 0  # readings that the charts have got so far

    def add(self, reading: Reading) -> None:
        self._fine.append(reading)
        if not self._coarse or reading.time >= self._coarse[-1].time + 0.95 * STEP:
            self._coarse.append(reading)
            self.charted += 1

    @property
    def newest(self) -> Reading | None:
        return self._fine[-1] if self._fine else None

    @property
    def oldest(self) -> Reading | None:
        return self._coarse[0] if self._coarse else None

    def readings(self) -> Iterator[Reading]:
        """All readings, oldest first."""
        first_fine = self._fine[0].time if self._fine else 0.0
        yield from (each for each in self._coarse if each.time < first_fine)
        yield from self._fine

    def steps(self) -> Iterator[tuple[Reading, Reading]]:
        """Each pair of neighbours that the charts show: before and after."""
        coarse = list(self._coarse)
        yield from pairwise(coarse)

    def window(self, seconds: float) -> Window | None:
        """The changes in the last seconds; None before the second reading."""
        newest = self.newest
        if newest is None:
            return None
        begin = newest.time - seconds
        found = None
        for each in self.readings():
            if each is newest:
                break
            if found is None or each.time <= begin:
                found = each  # the first one, or the last one before the window begins
        return Window(found, newest) if found is not None else None


class Window:
    """The time between two readings."""

    def __init__(self, before: Reading, after: Reading) -> None:
        self.before = before
        self.after = after
        self.seconds = max(1e-3, after.time - before.time)

    def route(self, name: str) -> RouteTotals:
        after, before = self.after.routes.get(name, RouteTotals()), self.before.routes.get(name)
        if before is None:
            return after
        return RouteTotals(after.times.since(before.times), max(0, after.errors - before.errors))

    def all_routes(self) -> RouteTotals:
        """The sum of all routes."""
        total = RouteTotals()
        for name in self.after.routes:
            found = self.route(name)
            if found.times.counts:
                total.times = _plus(total.times, found.times)
            total.errors += found.errors
        return total

    def pool(self, name: str) -> PoolTotals:
        """The counts of the window, and the state at its end."""
        after, before = self.after.pools[name], self.before.pools.get(name, PoolTotals())
        return PoolTotals(
            after.waiting,
            after.states,
            _minus(after.outcomes, before.outcomes),
            _minus(after.ends, before.ends),
            after.waited.since(before.waited),
            after.ran.since(before.ran),
        )

    def service(self, name: str) -> ServiceTotals:
        after, before = self.after.services[name], self.before.services.get(name, ServiceTotals())
        return ServiceTotals(
            after.times.since(before.times),
            max(0, after.errors - before.errors),
            max(0, after.retries - before.retries),
            after.replicas,
        )

    def candidate(self, name: str) -> CandidateTotals:
        after = self.after.candidates[name]
        before = self.before.candidates.get(name, CandidateTotals(after.route, after.artifact))
        variants = {
            variant: totals.since(before.variants.get(variant, VariantTotals()))
            for variant, totals in after.variants.items()
        }
        return CandidateTotals(
            after.route,
            after.artifact,
            variants,
            after.differences.since(before.differences),
            max(0, after.skipped - before.skipped),
        )

    def lag(self) -> Times:
        return self.after.lag.since(self.before.lag)

    def growth(self, name: str) -> float:
        """By how much a counter without labels has grown."""
        return max(0.0, self.after.values.get(name, 0.0) - self.before.values.get(name, 0.0))


def _minus(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: max(0, count - before.get(name, 0)) for name, count in after.items()}


def _plus(one: Times, other: Times) -> Times:
    if not one.counts:
        return other
    return Times(one.bounds, [a + b for a, b in zip(one.counts, other.counts, strict=True)], one.sum + other.sum)
