"""alarm.py: one timer for many deadlines, which are postponed after a standstill."""

from __future__ import annotations

import asyncio
import time
from time import monotonic

import pytest

from tinysvc.core.shutdown import STALL_THRESHOLD
from tinysvc.pool.alarm import Alarm


@pytest.mark.asyncio
async def test_alarm_rings_at_the_earliest_time() -> None:
    rung: list[float] = []
    happened = asyncio.Event()

    def ring() -> None:
        rung.append(monotonic())
        happened.set()

    alarm = Alarm(ring, lambda seconds: None)
    first = monotonic() + 0.02
    for when in (first + 60, first, first + 30):
        alarm.set(when)
    await happened.wait()
    assert rung[0] >= first


@pytest.mark.asyncio
async def test_cancelled_alarm_does_not_ring() -> None:
    rung: list[str] = []
    alarm = Alarm(lambda: rung.append("rung"), lambda seconds: None)
    alarm.set(monotonic() + 0.01)
    alarm.cancel()
    await asyncio.sleep(0.05)
    assert not rung


@pytest.mark.asyncio
async def test_deadlines_are_postponed_by_the_time_in_which_the_loop_was_blocked() -> None:
    postponed: list[float] = []
    alarm = Alarm(lambda: None, postponed.append)
    alarm.set(monotonic() + 0.01)
    blocked = 0.05 + STALL_THRESHOLD
    time.sleep(blocked)
    assert alarm.now() <= monotonic()
    assert len(postponed) == 1
    assert postponed[0] >= blocked
    alarm.cancel()
