"""balancing.py: the power of two choices."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.client.balancing import choose


@dataclass
class Place:
    in_flight: int


@given(st.lists(st.integers(0, 9), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_choice_is_never_the_busiest_of_all_alone(loads: list[int], source: random.Random) -> None:
    places = [Place(load) for load in loads]
    chosen = choose(places, source.random)
    busier = [place for place in places if place is not chosen and place.in_flight >= chosen.in_flight]
    assert busier  # one other at least was no better


@given(st.integers(1, 9), st.integers())
def test_every_replica_is_chosen(number: int, seed: int) -> None:
    source = random.Random(seed)
    places = [Place(0) for _ in range(number)]
    chosen = {id(choose(places, source.random)) for _ in range(number * 60)}
    assert len(chosen) == number


@pytest.mark.parametrize("number", [2, 5])
def test_slow_replica_gets_few_calls(number: int) -> None:
    """Calls begin one a tick and take two ticks each, those of one replica a hundred."""
    source = random.Random(1)
    places = [Place(0) for _ in range(number)]
    ends: list[tuple[int, Place]] = []
    begun = [0] * number
    for tick in range(2000):
        for end, place in ends:
            if end == tick:
                place.in_flight -= 1
        chosen = choose(places, source.random)
        chosen.in_flight += 1
        index = next(i for i, place in enumerate(places) if place is chosen)
        begun[index] += 1
        ends.append((tick + (100 if index == 0 else 2), chosen))
    assert begun[0] < 0.4 * 2000 / number
