"""The end of a process, which must come in time: a cleanup or a thread may hold it, and cannot be stopped.

A cleanup that awaits is cancelled (resources.py). One that blocks the event loop, or ignores its cancellation, and a
thread that does not return, hold the process. So a thread of our own watches the end, and ends the process by force.

A process may be stopped meanwhile (SIGSTOP, a paused container). All clocks go on then, and when the process does, it
would be too late for everything at once. So time is counted in beats, and one that takes much too long is a standstill
that does not count.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("tinysvc")

CLOCK_INTERVAL, STALL_THRESHOLD = 0.25, 0.25
"""Seconds between two looks at the clock; and by how many the second must come late to show a standstill."""

MIN_STEP_TIME = 0.5
"""Seconds that each step at the end gets where `shutdown_timeout` is over already."""

SLOW_CLOSE = 0.4
"""Seconds of closing after which a worker says what it closes: less than a MOMENT."""

STUCK_MESSAGE = "tasks or threads of handlers did not end within shutdown_timeout"


DRAINED = "the server drains"
"""The message of a cancellation that ends a stream because the server drains: nothing waits for its thread then."""

CUT_OFF = "the time of the drain is over"
"""The message of a cancellation that ends also the closing of resources."""


class Countdown:
    """Seconds that get less while the process is not stopped: `left` is to be called each BEAT."""

    def __init__(self, seconds: float) -> None:
        self._left, self._seen = seconds, monotonic()

    def left(self) -> float:
        now = monotonic()
        passed, self._seen = now - self._seen, now
        self._left = max(0.0, self._left - (passed if passed < CLOCK_INTERVAL + STALL_THRESHOLD else CLOCK_INTERVAL))
        return self._left

    def wait(self, over: threading.Event) -> bool:
        """For a thread: wait until nothing is left, or `over` is set. Whether it was set."""
        while left := self.left():
            if over.wait(min(left, CLOCK_INTERVAL)):
                return True
        return over.is_set()


class LoopCountdown(Countdown):
    """One that looks by itself, on the running loop. `at_end` is called when nothing is left."""

    def __init__(self, seconds: float, at_end: Callable[[], object] = lambda: None) -> None:
        import asyncio  # a worker has no loop

        super().__init__(seconds)
        self._at_end = at_end
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        if left := self.left():
            self._timer = self._loop.call_later(min(left, CLOCK_INTERVAL), self._look)
        else:
            self._at_end()

    def cancel(self) -> None:
        self._timer.cancel()


@asynccontextmanager
async def awake_timeout(seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
    """As asyncio.timeout, but the time in which the process was stopped does not count."""
    import asyncio

    async with asyncio.timeout(None) as limit:
        if seconds is None:
            yield limit
            return
        budget = LoopCountdown(seconds, lambda: limit.reschedule(0))
        try:
            yield limit
        finally:
            budget.cancel()


class ExitGuard:
    """Ends this process by force when the step at hand takes longer than it may. One that is not armed does nothing."""

    def __init__(self) -> None:
        self.is_armed = False
        self.abandoned_thread = False  # a drain did not wait for one: nor does the exit
        self._budget = Countdown(0)
        self._over = threading.Event()

    def limit_step(self, seconds: float, words: str) -> None:
        """The step that begins now ends within these seconds; else `words` say what was left behind."""
        self.end_step()
        self._budget, self._over = Countdown(seconds), threading.Event()
        if self.is_armed:
            _start(_watch_step, self._budget, self._over, words)

    def end_step(self) -> None:
        self._over.set()

    def limit_exit(self) -> None:
        """Once the main thread has ended, all other threads end in what is left of the time of the last step."""
        self.end_step()
        if self.is_armed:
            _start(_watch_exit, 0.0 if self.abandoned_thread else self._budget.left())


def _start(function: Callable[..., object], *arguments: object) -> None:
    with suppress(RuntimeError):  # no thread can be started: the service manager must end the process
        threading.Thread(target=function, args=arguments, daemon=True).start()


exit_guard = ExitGuard()
"""That of this process; armed where the process is ours: a server inside another program ends no process."""


def _watch_step(budget: Countdown, over: threading.Event, words: str) -> None:
    if not budget.wait(over):
        _end(words)


def _watch_exit(seconds: float) -> None:
    budget = Countdown(seconds)
    while budget.left() and threading.main_thread().is_alive():
        threading.main_thread().join(CLOCK_INTERVAL)
    threading.main_thread().join()
    Countdown(max(MIN_STEP_TIME, budget.left())).wait(threading.Event())
    if others := [thread.name for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]:
        _end(f"threads did not end in time: {', '.join(others)}")


def _end(words: str) -> None:
    log.error("%s; the process ends nonetheless", words)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(0)


# In a worker, which the server kills if it does not end in time

_closing = ""


def set_closing_resource(name: str) -> None:
    """The resource that is closed next."""
    global _closing
    _closing = name


@contextmanager
def warn_of_slow_close() -> Iterator[None]:
    """Name the resource whose cleanup takes long, while there is time for it."""
    timer = threading.Timer(
        SLOW_CLOSE, lambda: print(f"a worker still closes the resource {_closing}", file=sys.stderr)
    )
    timer.daemon = True
    with suppress(RuntimeError):
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
