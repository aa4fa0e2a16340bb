"""How long a peer's event loop was held: a task beside everything else that asks to be woken every millisecond."""

import asyncio
import time

BEAT = 0.001


class Heartbeat:
    """The longest time between two beats, beyond what was asked for, and the most CPU time its thread used meanwhile.

    The second is what the loop itself did; the rest of the first, that the machine gave the core to another process.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.held = self.used = 0.0

    def take(self) -> dict[str, float]:
        """Since it was last asked, in ms; asked for the first time, it starts."""
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
