"""Who holds the event loop? A thread that asks the loop for a sign of life, and says in the log what it does instead.

Nobody else is served while an `async def` handler computes, or sleeps without `await`. Some times a second the thread
leaves a callback with the loop; if it has not run after LIMIT, the stack of the loop's thread names the culprit. The
time that is said is a little less than the truth, as the handler began before the loop was asked.

A process that was stopped (SIGSTOP, a paused container) is nobody's fault: the thread slept too long itself, and no CPU
time went by. Where CPU time did go by, a handler kept the interpreter's lock, and with it this thread. What
the loop's thread has waited for a CPU on a busy machine, as Linux tells, does not count.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from ..core.tracebacks import HIDDEN_FRAMES
from .loading import is_authors

log = logging.getLogger("tinysvc")

LIMIT = 0.1
"""Seconds the loop may be held by one handler: a person begins to notice, others need a hundredth."""

PAUSE = 0.05
"""Seconds between two questions: rare enough to cost next to nothing. What holds the loop for LIMIT + PAUSE is always
seen, what holds it for LIMIT often."""

QUIET = 60.0
"""Seconds in which the same place is not told of again."""

OVERSLEPT = 2 * LIMIT
"""A wait of LIMIT that took so long, in seconds, was not the thread's own doing."""

_LOOP = ("/asyncio/runners.py", "/asyncio/base_events.py", "/asyncio/events.py")
"""Files whose frames stand between the main program and what the loop runs."""


class Watchdog:
    """The watching thread of one loop; `routes` are the names of what it may find there, by their code."""

    def __init__(self, loop: asyncio.AbstractEventLoop, routes: Mapping[CodeType, str]) -> None:
        self._loop = loop
        self._routes = routes
        self._told: dict[tuple[str, int], float] = {}  # file and line -> when
        self._loop_thread, self._loop_thread_of_kernel = threading.get_ident(), threading.get_native_id()
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
        """Whether the loop stood still for LIMIT, and neither the whole process nor the machine was the reason."""
        used, waited = time.process_time(), self._waited_for_a_cpu()
        while not self._alive.wait(LIMIT):
            slept = time.monotonic() - begin
            if slept >= OVERSLEPT and time.process_time() - used <= slept / 2:
                return False
            if slept - (self._waited_for_a_cpu() - waited) >= LIMIT:
                return True
        return False

    def _waited_for_a_cpu(self) -> float:
        """Seconds, since it began, that the loop's thread could have run and was not let; 0 where no kernel tells."""
        try:
            with open(f"/proc/self/task/{self._loop_thread_of_kernel}/schedstat") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _tell(self, begin: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        culprit, file, line = self._place(frame)
        is_mendable = bool(file)  # by the author
        if begin - self._told.get((file, line), -QUIET) >= QUIET:
            self._told[file, line] = begin
            log.log(
                logging.WARNING if is_mendable else logging.DEBUG,
                "%s holds the event loop, for %.2f s so far, at %s:%d: nobody else is served meanwhile. Make it "
                "@cpu_route if it computes; make it a plain `def`, or await, if it waits.\n%s",
                *(culprit, time.monotonic() - begin, file, line),
                author_stack(frame),
            )
        del frame  # it holds what the handler holds
        self._alive.wait()
        held = time.monotonic() - begin
        log.log(logging.INFO if is_mendable else logging.DEBUG, "the event loop is free again, after %.2f s", held)

    def _place(self, frame: FrameType | None) -> tuple[str, str, int]:
        """Who holds the loop, in which file and line: the route, or the innermost of what is no library; "" if none."""
        found = None
        while frame is not None and not frame.f_code.co_filename.endswith(_LOOP):
            if name := self._routes.get(frame.f_code):
                return name, frame.f_code.co_filename, frame.f_lineno
            if found is None and is_authors(frame.f_code.co_filename):
                found = frame
            frame = frame.f_back
        return ("something", found.f_code.co_filename, found.f_lineno) if found else ("something", "", 0)


def names_of(routes: Iterable[tuple[str, Callable[..., Any]]]) -> dict[CodeType, str]:
    """The names of routes by the code that runs in them."""
    functions = ((name, inspect.unwrap(function)) for name, function in routes)
    return {function.__code__: name for name, function in functions if inspect.isfunction(function)}


def author_stack(frame: FrameType | None) -> str:
    """The stack as text, but for what is ours or the loop's; whole if nothing else is in it."""
    stack = traceback.extract_stack(frame)
    begin = max([number for number, entry in enumerate(stack, 1) if entry.filename.endswith(_LOOP)], default=0)
    authors = [entry for entry in stack[begin:] if not any(hidden in entry.filename for hidden in HIDDEN_FRAMES)]
    return "".join(traceback.StackSummary.from_list(authors or stack).format()).rstrip()


@contextmanager
def watched(loop: asyncio.AbstractEventLoop, routes: Mapping[CodeType, str]) -> Iterator[None]:
    """A watchdog while the block runs. Enter and leave it in the loop's own thread."""
    watchdog = Watchdog(loop, routes)
    try:
        yield
    finally:
        watchdog.stop()
