"""The circuit breaker of a replica: calls avoid a failed replica, and one call at a time finds out if it is back.

    CLOSED ──MAX_FAILURES in a row, or one failed connection──> OPEN ──pause is over──> PROBED: one call
      ^                                                           ^                       │          │
      └───────────────────────── any response ────────────────────┼───────────────────────┘          │
                                                                  └────────────── failure ───────────┘

After "Circuit Breaker" of Michael Nygard's *Release It!*, and Finagle's failure accrual and fail-fast modules, which
give the numbers their order of magnitude.
"""

from __future__ import annotations

import math

MAX_FAILURES = 5
"""Failures in a row that open the breaker (Finagle's failure accrual: 5)."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until the first probe; the pause doubles with each failed one (Finagle: 5 to 300; a restart takes one)."""


REFUSED_PAUSE = 0.1
"""Seconds until each probe if nothing listens: a refusal costs nothing, and a restart is short."""


class Breaker:
    """The state of one replica. Times are seconds of any steady clock; `draw` is a random number from 0 to 1."""

    __slots__ = ("failures", "is_probed", "pauses", "until")

    def __init__(self) -> None:
        self.failures = 0  # in a row
        self.pauses = 0  # that ended with a failure, or last
        self.until = -math.inf  # the end of the pause
        self.is_probed = False

    def allows(self, now: float) -> bool:
        """Whether a call may begin."""
        return not self.pauses or (now >= self.until and not self.is_probed)

    def begin(self) -> bool:
        """A call begins that was allowed. Whether it is the probe: then `end_probe` must follow."""
        if not self.pauses:
            return False
        self.is_probed = True
        return True

    def end_probe(self) -> None:
        """The probe has ended, with or without a result: another one may begin."""
        self.is_probed = False

    def succeed(self) -> None:
        """The replica has responded."""
        self.failures = self.pauses = 0

    def fail(
        self, now: float, draw: float, *, is_probe: bool = False, at_once: bool = False, pause: float | None = None
    ) -> bool:
        """A connection failed, or a call timed out. Whether the breaker opens, for the first time or again.

        A failure of a call that began before the breaker opened says nothing new.

        Args:
            now: The time.
            draw: A random number from 0 to 1.
            is_probe: The call was the probe.
            at_once: One such failure is enough.
            pause: Seconds until the next probe, in place of the pause that doubles.
        """
        if self.pauses and not is_probe:
            return False
        self.failures += 1
        if not (is_probe or at_once or self.failures >= MAX_FAILURES):
            return False
        if pause is None:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self.pauses)
            self.pauses = min(self.pauses + 1, 16)
        else:
            self.pauses = max(self.pauses, 1)
        self.until = now + pause * (0.5 + draw)  # jitter: callers must not probe in step
        return True
