"""deadlines.py: one timer for many deadlines."""

from __future__ import annotations

import asyncio
from time import monotonic

from http_ends import on_loop
from tinysvc.client.deadlines import Deadlines


class Item:
    def __init__(self) -> None:
        self.expired = asyncio.Event()

    def expire(self, now: float) -> None:
        self.expired.set()


@on_loop
async def test_each_item_expires_at_its_own_time() -> None:
    deadlines, begin = Deadlines(), monotonic()
    late, soon, ended = Item(), Item(), Item()
    deadlines.add(late, begin + 0.06)
    deadlines.add(ended, begin + 0.03)
    deadlines.add(soon, begin + 0.02)
    deadlines.discard(ended)
    await soon.expired.wait()
    assert monotonic() - begin >= 0.019
    assert not late.expired.is_set()
    await late.expired.wait()
    assert monotonic() - begin >= 0.059
    assert not ended.expired.is_set()
    assert len(deadlines) == 0


@on_loop
async def test_timer_is_set_once_for_calls_that_end_in_time() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    timers = []
    real = loop.call_later
    loop.call_later = lambda *args: timers.append(args) or real(*args)  # type: ignore[method-assign,func-returns-value]
    item = Item()
    for number in range(100):
        deadlines.add(item, monotonic() + 10 + number)
        deadlines.discard(item)
    assert len(timers) == 1
    deadlines.cancel()


@on_loop
async def test_item_may_be_added_again_when_it_expires() -> None:
    deadlines = Deadlines()

    class Twice(Item):
        def expire(self, now: float) -> None:
            if seen:
                super().expire(now)
            else:
                seen.append(now)
                deadlines.add(self, now + 0.01)

    seen: list[float] = []
    item = Twice()
    deadlines.add(item, monotonic())
    await item.expired.wait()
    assert len(seen) == 1


@on_loop
async def test_cancelled_deadlines_do_not_expire() -> None:
    deadlines, item = Deadlines(), Item()
    deadlines.add(item, monotonic() + 0.01)
    deadlines.cancel()
    await asyncio.sleep(0.03)
    assert not item.expired.is_set()
