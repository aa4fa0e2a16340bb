"""units.py: one definition of the units, which the limits are written in."""

from __future__ import annotations

from tinysvc.core import form_data, settings
from tinysvc.core.units import KiB, MiB


def test_units_are_powers_of_two() -> None:
    assert (KiB, MiB) == (2**10, 2**20)
    assert (form_data.SPOOL_SIZE, settings.Settings().max_body_size) == (MiB, 16 * MiB)
