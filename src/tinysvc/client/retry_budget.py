"""The retry budget of a service: retries and hedges are at most a tenth of its calls, and one a second.

After Finagle's RetryBudget (twitter.github.io/finagle, "Retries"): each call deposits, each retry withdraws, and a
deposit expires after ten seconds. So a failure of a replica is bridged, and a failure of the service is not multiplied.
"""

from __future__ import annotations

WINDOW = 10
"""Seconds until a deposit expires (Finagle: 10)."""

SHARE = 0.1
"""Retries for each call (Finagle: 0.2; SRE book, chapter 21: 0.1)."""

PER_SECOND = 1
"""Retries a second that need no deposit, for services that are called seldom (Finagle: 10)."""


class RetryBudget:
    """The deposits and withdrawals in each of the last WINDOW seconds. Times are seconds of any steady clock."""

    __slots__ = ("_balances", "_deposits", "_second", "_withdrawals")

    def __init__(self) -> None:
        self._second = 0  # the one that the counters belong to
        self._deposits = self._withdrawals = 0
        self._balances: list[tuple[int, int, int]] = []  # second, deposits, withdrawals

    def deposit(self, now: float) -> None:
        """Count one call."""
        if int(now) != self._second:
            self._turn(int(now))
        self._deposits += 1

    def withdraw(self, now: float) -> bool:
        """Whether there is room for one more retry; if so, count it."""
        if int(now) != self._second:
            self._turn(int(now))
        deposits = self._deposits + sum(each[1] for each in self._balances)
        withdrawals = self._withdrawals + sum(each[2] for each in self._balances)
        if withdrawals + 1 > deposits * SHARE + PER_SECOND * WINDOW:
            return False
        self._withdrawals += 1
        return True

    def _turn(self, second: int) -> None:
        self._balances.append((self._second, self._deposits, self._withdrawals))
        self._balances = [each for each in self._balances if second - WINDOW < each[0]]
        self._second, self._deposits, self._withdrawals = second, 0, 0
