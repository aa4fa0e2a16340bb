"""models/alias_entries.py: times as text."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from tinysvc.models.alias_entries import AliasEntry, current_time, text_of_time


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**52))
def test_time_survives_its_text(microseconds: int) -> None:
    at = round(microseconds / 1_000_000, 6)
    assert datetime.fromisoformat(text_of_time(at)).timestamp() == at


def test_entry_has_its_time_as_text() -> None:
    assert AliasEntry(7, "ada", 0.5, 1).time == "1970-01-01T00:00:00.500000Z"
    assert datetime.fromisoformat(text_of_time(current_time())).tzinfo is not None
