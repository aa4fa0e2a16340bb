"""A hint to the author of a cpu route whose work is smaller than its way to a worker and back."""

from __future__ import annotations

import logging
from statistics import median

log = logging.getLogger("tinysvc")

ENOUGH = 100
"""Answers that are looked at: after these, nothing is measured any more."""


class Sample:
    """The first answers of one route, told by its name."""

    def __init__(self, route: str) -> None:
        self._route = route
        self._works: list[float] = []
        self._trips: list[float] = []

    def is_full_with(self, work: float, ran: float) -> bool:
        """Take one more: seconds of work in the worker, and until the answer was here. At the last, say what is found.

        The shortest trip is compared, as a busy loop makes all others longer.
        """
        self._works.append(work)
        self._trips.append(ran - work)
        if len(self._works) < ENOUGH:
            return False
        usual, trip = median(self._works), min(self._trips)
        if usual < trip:
            log.info(
                "a hint: %s works for %.0f µs, and the way to a worker and back takes %.0f µs; make it an @io_route, "
                "unless it may take longer with other requests",
                self._route,
                usual * 1e6,
                trip * 1e6,
            )
        return True
