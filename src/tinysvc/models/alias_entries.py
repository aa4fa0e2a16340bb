"""One entry of an alias, and times as text."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """One move of an alias.

    Attributes:
        version: The version that the alias names since then.
        by: The person or process that moved it; may be empty.
        at: When, in seconds since 1970.
        number: Number of the entry; the first one is 1.
        restores: Number of the entry that a rollback has restored; 0 for a move.
    """

    version: int
    by: str
    at: float
    number: int
    restores: int = 0

    @property
    def time(self) -> str:
        """When the alias was moved, as text in UTC."""
        return text_of_time(self.at)


def current_time() -> float:
    """The time in seconds since 1970, in whole microseconds: text has no more."""
    return round(time.time(), 6)


def text_of_time(seconds: float) -> str:
    """A time as text in UTC, as in 2026-11-29T20:15:00.123456Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
