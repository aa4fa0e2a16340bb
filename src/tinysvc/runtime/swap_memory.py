"""What the swaps of a server process have to remember: which versions failed, and how often workers crash.

A *state* is the set of the digests of all versions that a server process serves together. A version may fail in one
state and work in another, because two artifacts belong together; so it is the state that is not tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from time import monotonic

from .served_artifacts import ArtifactVersions

WINDOW = 60.0
"""Seconds after a swap in which crashes of the new version lead back to the old one."""

CRASHES = 2
"""So many crashes more than the old version had in its last WINDOW are the new version's fault: one may be that of a
request, which the old version would not have survived either."""

BAD_CAUSES = frozenset({"crashed", "exited", "out_of_memory", "memory_error", "start_failed", "protocol_error"})
"""Causes of a worker's end that count as a crash. `killed` does not: that is a person's doing."""

LONGEST_PAUSE = 60.0
"""Seconds between two attempts to fetch a version that the store does not give."""

State = frozenset[str]


def state_of(versions: ArtifactVersions) -> State:
    """The state with these versions."""
    return frozenset(version.digest for version in versions.values())


class FailedStates:
    """The states that could not be opened, or that crashed."""

    def __init__(self) -> None:
        self.states: set[State] = set()

    def add(self, states: Iterable[Iterable[str]]) -> None:
        self.states |= {frozenset(state) for state in states}

    def choose(self, served: ArtifactVersions, new: ArtifactVersions) -> ArtifactVersions | None:
        """What to serve next: all new versions together, or one of them alone. None if all that has failed before.

        Args:
            served: The versions that are served.
            new: The versions that the aliases name.
        """
        changed = [each for each in new if served.get(each) != new[each]]
        if not changed:
            return None
        for attempt in (changed, *([each] for each in changed if len(changed) > 1)):
            target = {**served, **{each: new[each] for each in attempt}}
            if state_of(target) not in self.states:
                return target
        return None


class RefusedVersions:
    """The versions that could not be fetched, by reference and number."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], tuple[float, float]] = {}  # until when, and for how long

    def hold(self, reference: str, number: int, pause: float) -> None:
        """Do not fetch this version for so many seconds; each time it is held again, twice as long."""
        _, before = self._held.get((reference, number), (0.0, 0.0))
        pause = pause if pause == inf else min(LONGEST_PAUSE, max(pause, 2 * before))
        self._held[reference, number] = (monotonic() + pause, pause)

    def is_held(self, reference: str, number: int) -> bool:
        """Whether this version must not be fetched now."""
        until, _ = self._held.get((reference, number), (0.0, 0.0))
        return monotonic() < until


class CrashWatch:
    """Counts the crashes of the workers with the newest versions."""

    def __init__(self) -> None:
        self.count = 0
        self.causes: list[str] = []
        self._labels: dict[str, str] = {}  # of the generation that is watched, by pool
        self._until = -inf
        self._before: deque[float] = deque(maxlen=100)  # times of all crashes
        self._tolerated = 0

    def begin(self, labels: dict[str, str]) -> None:
        """A swap begins.

        Args:
            labels: The label of the new generation, by the name of its pool.
        """
        since = monotonic() - WINDOW
        self._tolerated = sum(when >= since for when in self._before)
        self.count, self.causes, self._labels, self._until = 0, [], labels, inf

    def swapped(self) -> None:
        """The swap has ended: from now on, time counts."""
        self._until = monotonic() + WINDOW

    def end(self) -> None:
        """Count no further crashes."""
        self._until = -inf

    def note(self, pool: str, label: str, cause: str) -> bool:
        """Note the end of a worker. Returns whether these are now too many."""
        if cause not in BAD_CAUSES:
            return False
        now = monotonic()
        self._before.append(now)
        if now > self._until or self._labels.get(pool) != label:
            return False
        self.count += 1
        self.causes.append(cause)
        return self.is_bad

    @property
    def is_over(self) -> bool:
        """Whether further crashes do not count."""
        return monotonic() > self._until

    @property
    def is_bad(self) -> bool:
        """Whether the new version has crashed too many workers."""
        return self.count >= CRASHES + self._tolerated and self._until > monotonic()
