"""RPCs whose message has not arrived: grpcio calls no handler for them, so no other limit holds for them.

A client could open thousands, and send a part of a big message to each. grpcio does not show how many bytes it holds
for them. Those that are silent for longer than a moment therefore count as the largest message.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from .rpc_requests import Metadata

LOOK = 0.2
"""Seconds between two looks at them."""

A_MOMENT = 5
"""Looks after which one counts. They are looks and not seconds: the messages that have arrived while the loop was busy
are read before the next look."""

TOO_LONG = "the message of the call has not arrived"


class SilentCalls:
    """The tasks of these RPCs. The client of one that is ended gets CANCELLED.

    Args:
        timeout: Seconds that one may be silent.
        most: How many may be silent for longer than a moment; the newest others are ended.

    A task is added to `metadata` when its RPC begins, and removed when its message has arrived.
    """

    def __init__(self, timeout: float, most: int) -> None:
        self.metadata: dict[asyncio.Task[Any], Metadata] = {}  # that of each RPC; the oldest first
        self.timer: asyncio.TimerHandle | None = None
        self._looks: dict[asyncio.Task[Any], int] = {}  # at those that were there at the last look
        self._last = max(A_MOMENT, int(timeout / LOOK)) if timeout else 0
        self._most = most

    def watch(self) -> None:
        """Look at them from now on, while there are any."""
        self.timer = asyncio.get_running_loop().call_later(LOOK, self.look)

    def look(self) -> None:
        """End those that are silent for too long, or too many."""
        counted = 0
        ended: list[asyncio.Task[Any]] = []
        before, self._looks = self._looks, {}
        for task in list(self.metadata):
            if task.done():  # its client has disconnected
                del self.metadata[task]
                continue
            looks = before.get(task, 0)
            self._looks[task] = looks + 1
            counted += looks >= A_MOMENT
            if (looks >= self._last > 0) or (looks >= A_MOMENT and counted > self._most):
                del self.metadata[task], self._looks[task]
                ended.append(task)
        if ended:
            _end(ended)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.metadata:
            self.watch()


def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel the tasks of RPCs, and let go of their streams.

    grpcio has a second task for each RPC, which waits for its end and holds its stream, with what has arrived of the
    message. It has the first task in a variable, and no other way leads from one to the other.
    """
    wanted = {id(task) for task in tasks}
    for task in tasks:
        task.cancel(TOO_LONG)
    for other in asyncio.all_tasks():
        variables = [value for scope in gc.get_referents(other.get_coro()) for value in gc.get_referents(scope)]
        if getattr(other.get_coro(), "__name__", "") == "_schedule_rpc_coro" and any(
            id(value) in wanted for value in variables
        ):
            other.cancel(TOO_LONG)
