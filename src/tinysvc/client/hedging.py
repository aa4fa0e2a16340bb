"""Hedged calls: if the first attempt is slow, a second one goes to another replica, and the first response wins.

After "The Tail at Scale" (Dean and Barroso, CACM 56/2, 2013). Only idempotent calls are hedged. A hedge is charged to
the retry budget, so a service that is slow as a whole gets a tenth more calls, and not twice as many. The loser is
cancelled: its connection closes, and its callee kills the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .messages import Incoming

Attempt = Coroutine[Any, Any, Incoming]


async def first_response(first: Attempt, delay: float, second: Callable[[], Attempt | None]) -> Incoming:
    """The response of `first`, or of the one that `second` returns if `first` has none after `delay` seconds.

    An attempt that fails does not end the other. Both failed: the error of the first.
    """
    tasks = [asyncio.create_task(first)]
    winner = None
    try:
        running, _ = set(tasks), await asyncio.wait(tasks, timeout=delay)
        if not tasks[0].done() and (attempt := second()) is not None:
            tasks.append(asyncio.create_task(attempt))
            running = set(tasks)
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in tasks if task in done and task.exception() is None), None)
            if winner is not None:
                return winner.result()
        return tasks[0].result()
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[Incoming]) -> None:
    """The other attempt was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().discard()
