"""retries.py: the table of failures."""

from __future__ import annotations

import pytest

from tinysvc.client.retries import Failure, is_blamed, is_certain, may_repeat, was_not_sent


@pytest.mark.parametrize(
    ("failure", "idempotent", "others", "free", "blamed", "at_once"),
    [
        (Failure.REFUSED, True, True, True, True, True),
        (Failure.NOT_SENT, True, True, True, True, True),
        (Failure.SLOW_CONNECT, True, True, True, True, False),
        (Failure.NO_TIME, True, True, True, False, False),
        (Failure.IDLE_RACE, True, False, False, False, False),
        (Failure.NO_RESPONSE, True, False, False, True, False),
        (Failure.NOT_STARTED, True, True, False, False, False),
        (Failure.CUT_SHORT, False, False, False, True, False),
    ],
)
def test_table(failure: Failure, idempotent: bool, others: bool, free: bool, blamed: bool, at_once: bool) -> None:
    assert may_repeat(failure, idempotent=True) is idempotent
    assert may_repeat(failure, idempotent=False) is others
    assert was_not_sent(failure) is free
    assert is_blamed(failure) is blamed
    assert is_certain(failure) is at_once
