"""Measure how long a peer's event loop is blocked: a task that wakes up every millisecond."""

import asyncio
import time

BEAT = 0.001


class Heartbeat:
    """The longest delay of a beat (`held`), and the most CPU time of the thread between two beats (`used`).

    `used` is the work of the event loop itself; the rest of `held` is time in which another process had the core.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.held = self.used = 0.0

    def take(self) -> dict[str, float]:
        """Return the values since the last call, in ms; the first call starts the task."""
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._beat())
        found = {"held": self.held * 1e3, "used": self.used * 1e3}
        self.held = self.used = 0.0
        return found

    async def _beat(self) -> None:
        while True:
            begin, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(BEAT)
            self.held = max(self.held, time.perf_counter() - begin - BEAT)
            self.used = max(self.used, time.thread_time() - used)
