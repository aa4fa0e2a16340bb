"""Whether the memory of a worker grows steadily: a leak, and not the warm-up of a cache or a model."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from ..core.units import MiB

LOOKS = 180
"""Measurements that are kept: 15 minutes with one each five seconds."""

MIN_LOOKS = 6
"""Measurements below which nothing is said: two in each third of the time."""

MIN_GROWTH = 16 * MiB
"""Bytes of growth that are worth a warning: an allocator keeps a few megabytes anyway."""

MIN_SHARE = 0.15
"""Share of the growth that each third of the time must have: a warm-up grows in the first third alone."""


class MemoryGrowth:
    """The measurements of one worker."""

    __slots__ = ("_looks",)

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque(maxlen=LOOKS)

    def look(self, time: float, memory: int) -> None:
        self._looks.append((time, memory))

    def steady(self) -> tuple[int, float]:
        """Bytes by which the memory has grown, and the seconds of that; 0 bytes if it does not grow steadily."""
        looks = self._looks
        if len(looks) < MIN_LOOKS:
            return 0, 0.0
        (begin, first), (end, last) = looks[0], looks[-1]
        third = len(looks) // 3
        growth = last - first
        marks = first, looks[third][1], looks[2 * third][1], last
        least = min(after - before for before, after in pairwise(marks))
        if growth < MIN_GROWTH or least < MIN_SHARE * growth:
            return 0, 0.0
        return growth, end - begin
