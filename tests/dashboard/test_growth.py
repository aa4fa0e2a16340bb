"""growth.py: a leak grows in each third of the time; a warm-up does not."""

from __future__ import annotations

import pytest

from tinysvc.core.units import MiB
from tinysvc.dashboard.growth import LOOKS, MemoryGrowth


def growth_of(megabytes: list[float]) -> int:
    growth = MemoryGrowth()
    for number, each in enumerate(megabytes):
        growth.look(5.0 * number, round(each * MiB))
    return growth.steady()[0]


@pytest.mark.parametrize(
    ("name", "megabytes", "expected"),
    [
        ("leak", [50 + 5 * n for n in range(12)], 55),
        ("leak in steps", [50 + 20 * (n // 3) for n in range(12)], 60),
        ("warm-up", [50, 200, 400, 400, 400, 400, 400, 400, 400], 0),
        ("steady", [50.0] * 20, 0),
        ("noise", [50, 52, 49, 53, 50, 54, 51, 55, 50], 0),
        ("too short", [50, 150, 250], 0),
    ],
)
def test_only_steady_growth_is_a_leak(name: str, megabytes: list[float], expected: int) -> None:
    assert growth_of(megabytes) == expected * MiB


def test_only_the_last_measurements_count() -> None:
    assert growth_of([50 + n for n in range(2 * LOOKS)]) == (LOOKS - 1) * MiB
