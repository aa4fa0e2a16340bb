"""cursors.py: a cursor is a place, and everything else is refused."""

from __future__ import annotations

import pytest

from tinysvc.jobs.cursors import LAST, place_of


def test_cursor_is_a_place() -> None:
    assert (place_of(""), place_of("7"), place_of("9" * 18)) == (LAST, 7, 10**18 - 1)


@pytest.mark.parametrize("text", ["nonsense", "-1", "1_0", " 7", "٣", "9" * 19, "\0"])
def test_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a cursor is `next` of a page"):
        place_of(text)
