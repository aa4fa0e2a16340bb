"""The choice of a replica: of two at random, the one with fewer calls in flight.

"The power of two choices" (Mitzenmacher, IEEE TPDS 12/10, 2001): the longest queue grows with log log n instead of
log n, and unlike "the least loaded of all", many callers with old knowledge do not rush at one replica. A slow replica
holds its calls longer, so it gets fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """Something that calls are sent to."""

    in_flight: int


T = TypeVar("T", bound=Loaded)


def choose(replicas: Sequence[T], draw: Callable[[], float]) -> T:
    """One of `replicas`, at least one. `draw` returns random numbers from 0 to below 1."""
    number = len(replicas)
    if number == 1:
        return replicas[0]
    first = int(draw() * number)
    second = int(draw() * (number - 1))
    if second >= first:
        second += 1
    one, other = replicas[first], replicas[second]
    return other if other.in_flight < one.in_flight else one
