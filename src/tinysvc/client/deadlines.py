"""One timer of the event loop for the deadlines of all calls."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Protocol


class Expiring(Protocol):
    """Something that has a deadline."""

    def expire(self, now: float) -> None:
        """The deadline has passed."""


class Deadlines:
    """The deadlines of calls under way, in seconds of `time.monotonic`.

    The timer is set to the earliest deadline that was added since it rang. A call that ends in time takes its deadline
    away and leaves the timer: so a timer is set once for many calls, and none is set for each.
    """

    def __init__(self) -> None:
        self._items: dict[Expiring, float] = {}
        self._when = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Expiring, when: float) -> None:
        """Call `item.expire` at this time, instead of an earlier one that was given for it."""
        self._items[item] = when
        if when < self._when:
            self._set(when, monotonic())

    def discard(self, item: Expiring) -> None:
        """`item` has ended in time."""
        self._items.pop(item, None)

    def cancel(self) -> None:
        """Forget all deadlines and stop the timer."""
        self._items.clear()
        self._when = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._when = when
        self._timer = asyncio.get_running_loop().call_later(max(0.0, when - now), self._ring)

    def _ring(self) -> None:
        now = monotonic()
        self._timer, self._when = None, math.inf
        for item in [item for item, when in self._items.items() if when <= now]:
            self._items.pop(item, None)
            item.expire(now)
        earliest = min(self._items.values(), default=math.inf)
        if earliest < self._when:
            self._set(earliest, now)
