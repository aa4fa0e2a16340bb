"""The end of a process, which must come in time: a cleanup or a thread may hold it, and cannot be stopped.

A cleanup that awaits is cancelled (resources.py). One that blocks the event loop, or ignores its cancellation, and a
thread that does not return, hold the process. So a thread of our own watches the end, and ends the process by force.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

log = logging.getLogger("tinysvc")

MOMENT = 0.5
"""Seconds that each step at the end gets where `shutdown_timeout` is over already."""

SLOW = 0.4
"""Seconds of closing after which a worker says what it closes: less than a MOMENT."""

STUCK = "tasks or threads of handlers did not end within shutdown_timeout"


class Watch:
    """Ends this process by force when the step at hand takes longer than it may. One that is not armed does nothing."""

    def __init__(self) -> None:
        self.is_armed = False
        self.left_thread = False  # a drain did not wait for one: nor does the exit
        self._until = 0.0
        self._timer: threading.Timer | None = None

    def expect(self, seconds: float, words: str) -> None:
        """The step that begins now ends within these seconds; else `words` say what was left behind."""
        self.forget()
        self._until = time.monotonic() + seconds
        if self.is_armed:
            self._start(threading.Timer(seconds, _end, [words]))

    def forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def expect_exit(self) -> None:
        """Once the main thread has ended, all other threads end in what is left of the time of the last step."""
        self.forget()
        if self.is_armed:
            self._start(threading.Thread(target=_watch_exit, args=[0.0 if self.left_thread else self._until]))

    def _start(self, thread: threading.Thread) -> None:
        thread.daemon = True
        with suppress(RuntimeError):  # no thread can be started: the service manager must end the process
            thread.start()
            if isinstance(thread, threading.Timer):
                self._timer = thread


watch = Watch()
"""That of this process; armed where the process is ours: a server inside another program ends no process."""


def _watch_exit(until: float) -> None:
    threading.main_thread().join()
    time.sleep(max(MOMENT, until - time.monotonic()))
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


def begin_to_close(name: str) -> None:
    """The resource that is closed next."""
    global _closing
    _closing = name


@contextmanager
def slow_close_told() -> Iterator[None]:
    """Name the resource whose cleanup takes long, while there is time for it."""
    timer = threading.Timer(SLOW, lambda: print(f"a worker still closes the resource {_closing}", file=sys.stderr))
    timer.daemon = True
    with suppress(RuntimeError):
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
