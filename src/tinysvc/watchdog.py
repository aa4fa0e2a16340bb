"""Who holds the event loop? A thread that asks the loop for a sign of life, and says in the log what it does instead.

Nobody else is served while an `async def` handler computes, or sleeps without `await`. Some times a second the thread
leaves a callback with the loop; if it has not run after LIMIT, the stack of the loop's thread names the culprit. The
time that is said is a little less than the truth, as the handler began before the loop was asked.

A process that was stopped (SIGSTOP, a paused container) is nobody's fault: the thread slept too long itself, and no CPU
time went by. Where CPU time did go by, a handler kept the interpreter's lock, and with it this thread.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import _HIDDEN

log = logging.getLogger("tinysvc")

LIMIT = 0.25
"""Seconds the loop may be held by one handler: half of what a person notices, and a hundred times what others need."""

PAUSE = 0.25
"""Seconds between two questions: rare enough to cost nothing."""

OVERSLEPT = 2 * LIMIT
"""A wait of LIMIT that took so long, in seconds, was not the thread's own doing."""

_LOOP = ("/asyncio/runners.py", "/asyncio/base_events.py", "/asyncio/events.py")
"""Files whose frames stand between the main program and what the loop runs."""


class Watchdog:
    """The watching thread of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._alive = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tinysvc-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Called by the loop's thread; the watching one ends at once."""
        self._stopped.set()
        self._alive.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(PAUSE):
            self._alive.clear()
            if self._stopped.is_set():
                return
            self._loop.call_soon_threadsafe(self._alive.set)
            begin = time.monotonic()
            if self._is_held(begin):
                self._tell(begin)

    def _is_held(self, begin: float) -> bool:
        """Whether the loop, and not the whole process, stood still for LIMIT."""
        used = time.process_time()
        if self._alive.wait(LIMIT):
            return False
        slept = time.monotonic() - begin
        return slept < OVERSLEPT or time.process_time() - used > slept / 2

    def _tell(self, begin: float) -> None:
        log.warning(
            "the event loop has been held for %.2f s so far; nobody else is served meanwhile. Await what takes long, "
            "make the handler a plain `def`, or a cpu_route if it computes. It is at:\n%s",
            time.monotonic() - begin,
            author_stack(sys._current_frames().get(self._loop_thread)),
        )
        self._alive.wait()
        log.warning("the event loop is free again; it was held for %.2f s", time.monotonic() - begin)


def author_stack(frame: FrameType | None) -> str:
    """The stack as text, but for what is ours or the loop's; whole if nothing else is in it."""
    stack = traceback.extract_stack(frame)
    begin = max([number for number, entry in enumerate(stack, 1) if entry.filename.endswith(_LOOP)], default=0)
    authors = [entry for entry in stack[begin:] if not any(hidden in entry.filename for hidden in _HIDDEN)]
    return "".join(traceback.StackSummary.from_list(authors or stack).format()).rstrip()


@contextmanager
def watched(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """A watchdog while the block runs. Enter and leave it in the loop's own thread."""
    watchdog = Watchdog(loop)
    try:
        yield
    finally:
        watchdog.stop()
