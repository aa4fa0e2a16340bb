"""The shutdown of a process must end in time, even if a cleanup or a thread does not return.

A cleanup that awaits is cancelled (open_resources.py). A cleanup that blocks the event loop or ignores cancellation,
and a thread that does not return, cannot be stopped. A thread of the exit guard therefore ends the process by force.

The process may be suspended meanwhile (SIGSTOP, a paused container). The clock goes on, and all deadlines would have
passed when the process continues. A countdown therefore looks at the clock in short intervals, and an interval that
takes much too long is a standstill that does not count.
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
"""Seconds between two looks at the clock; and the delay in seconds that shows a standstill."""

MIN_STEP_TIME = 0.5
"""Seconds that each step of the shutdown gets even after `shutdown_timeout`."""

SLOW_CLOSE = 0.4
"""Seconds after which a worker names the resource that it still closes: less than MIN_STEP_TIME."""

STUCK_MESSAGE = "tasks or threads of handlers did not end within shutdown_timeout"


DRAINED = "the server drains"
"""Message of the cancellation that ends a stream in a drain. The stream then does not wait for its thread."""

CUT_OFF = "the time of the drain is over"
"""Message of the cancellation at the end of the drain. It also ends the closing of resources."""


class Countdown:
    """Seconds that run down while the process is not suspended. Call `left` every CLOCK_INTERVAL."""

    def __init__(self, seconds: float) -> None:
        self._left, self._seen = seconds, monotonic()

    def left(self) -> float:
        now = monotonic()
        passed, self._seen = now - self._seen, now
        self._left = max(0.0, self._left - (passed if passed < CLOCK_INTERVAL + STALL_THRESHOLD else CLOCK_INTERVAL))
        return self._left

    def wait(self, over: threading.Event) -> bool:
        """Block until nothing is left or `over` is set. Return whether it was set."""
        while left := self.left():
            if over.wait(min(left, CLOCK_INTERVAL)):
                return True
        return over.is_set()


class LoopCountdown(Countdown):
    """A countdown that looks at the clock by itself, on the running loop. It calls `at_end` when nothing is left."""

    def __init__(self, seconds: float, at_end: Callable[[], object] = lambda: None) -> None:
        import asyncio  # not at the top: a worker must not import it

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
    """As asyncio.timeout, but time in which the process is suspended does not count."""
    import asyncio

    async with asyncio.timeout(None) as limit:
        if seconds is None:
            yield limit
            return
        countdown = LoopCountdown(seconds, lambda: limit.reschedule(0))
        try:
            yield limit
        finally:
            countdown.cancel()


class ExitGuard:
    """Ends this process by force if a step of the shutdown exceeds its time limit. It does nothing unless armed."""

    def __init__(self) -> None:
        self.is_armed = False
        self.abandoned_thread = False  # set if a drain did not wait for a thread: the exit does not wait either
        self._countdown = Countdown(0)
        self._over = threading.Event()

    def limit_step(self, seconds: float, message: str) -> None:
        """Begin a step that must end within `seconds`. If it does not, log `message` and end the process."""
        self.end_step()
        self._countdown, self._over = Countdown(seconds), threading.Event()
        if self.is_armed:
            _start_thread(_watch_step, self._countdown, self._over, message)

    def end_step(self) -> None:
        self._over.set()

    def limit_exit(self) -> None:
        """Give all other threads the remaining time of the last step, from the end of the main thread on."""
        self.end_step()
        if self.is_armed:
            _start_thread(_watch_exit, 0.0 if self.abandoned_thread else self._countdown.left())


def _start_thread(function: Callable[..., object], *arguments: object) -> None:
    with suppress(RuntimeError):  # no thread can start: then only the service manager can end the process
        threading.Thread(target=function, args=arguments, daemon=True).start()


exit_guard = ExitGuard()
"""The guard of this process. A server inside another program does not arm it: it must not end that process."""


def _watch_step(countdown: Countdown, over: threading.Event, message: str) -> None:
    if not countdown.wait(over):
        _end_process(message)


def _watch_exit(seconds: float) -> None:
    countdown = Countdown(seconds)
    while countdown.left() and threading.main_thread().is_alive():
        threading.main_thread().join(CLOCK_INTERVAL)
    threading.main_thread().join()
    Countdown(max(MIN_STEP_TIME, countdown.left())).wait(threading.Event())
    if others := [thread.name for thread in threading.enumerate() if not thread.daemon and thread.is_alive()]:
        _end_process(f"threads did not end in time: {', '.join(others)}")


def _end_process(message: str) -> None:
    log.error("%s; the process ends nonetheless", message)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    for handler in logging.getLogger().handlers:
        with suppress(Exception):  # the author's handler may be in any state
            handler.flush()
    os._exit(0)


# In a worker: the server kills it if it does not end in time

_closing = ""


def set_closing_resource(name: str) -> None:
    """Note the resource that is closed next."""
    global _closing
    _closing = name


@contextmanager
def warn_of_slow_close() -> Iterator[None]:
    """Print the name of a resource whose cleanup takes long, before the server kills the worker."""
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
