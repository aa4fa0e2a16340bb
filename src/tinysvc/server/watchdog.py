"""A watchdog thread that logs which handler blocks the event loop.

While an `async def` handler computes, or sleeps without `await`, no other request is served. Several times a second the
thread schedules a callback on the loop; if it has not run after LIMIT, the stack of the loop's thread shows the
handler. The logged time is a little too short, as the handler began before the callback was scheduled.

A stopped process (SIGSTOP, a paused container) is not the handler's fault: the watchdog itself has slept too long, and
no CPU time was used. If CPU time was used, a handler held the interpreter's lock, which blocked the watchdog, too.
Time in which the loop's thread waited for a CPU on a busy machine, as Linux reports it, does not count.
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
"""Seconds that a handler may block the loop: a person begins to notice, and most handlers need a hundredth."""

PAUSE = 0.05
"""Seconds between two checks: rare enough to cost almost nothing. A block of LIMIT + PAUSE is always detected, a block
of LIMIT often."""

QUIET = 60.0
"""Seconds in which the same line is not logged again."""

OVERSLEPT = 2 * LIMIT
"""Seconds: a wait of LIMIT that took this long means that the whole process was stopped or starved."""

_LOOP = ("/asyncio/runners.py", "/asyncio/base_events.py", "/asyncio/events.py")
"""Files whose frames are between the main program and the code that the loop runs."""


class Watchdog:
    """The watchdog thread of one loop.

    Args:
        loop: The loop.
        routes: Names of routes by their code.
        on_block: Called in the thread with the name of the route that blocks the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routes: Mapping[CodeType, str],
        on_block: Callable[[str], None] | None = None,
    ) -> None:
        self._loop = loop
        self._routes = routes
        self._on_block = on_block
        self._logged: dict[tuple[str, int], float] = {}  # file and line -> when
        self._loop_thread, self._loop_thread_of_kernel = threading.get_ident(), threading.get_native_id()
        self._alive = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tinysvc-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Called by the loop's thread; the watchdog thread ends at once."""
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
        """Whether a handler blocked the loop for LIMIT: not a stopped process, nor a busy machine."""
        used, waited = time.process_time(), self._waited_for_a_cpu()
        while not self._alive.wait(LIMIT):
            slept = time.monotonic() - begin
            if slept >= OVERSLEPT and time.process_time() - used <= slept / 2:
                return False
            if slept - (self._waited_for_a_cpu() - waited) >= LIMIT:
                return True
        return False

    def _waited_for_a_cpu(self) -> float:
        """Seconds that the loop's thread has waited for a CPU so far; 0 where the kernel does not report it."""
        try:
            with open(f"/proc/self/task/{self._loop_thread_of_kernel}/schedstat") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def _tell(self, begin: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        culprit, file, line = self._place(frame)
        is_mendable = bool(file)  # the author can change this line
        if self._on_block is not None and is_mendable:
            self._on_block(culprit)
        if begin - self._logged.get((file, line), -QUIET) >= QUIET:
            self._logged[file, line] = begin
            log.log(
                logging.WARNING if is_mendable else logging.DEBUG,
                "%s blocks the event loop, for %.2f s so far, at %s:%d: no other request is served. Make it "
                "@cpu_route if it computes; make it a plain `def`, or await, if it waits.\n%s",
                *(culprit, time.monotonic() - begin, file, line),
                author_stack(frame),
            )
        del frame  # it references the variables of the handler
        self._alive.wait()
        held = time.monotonic() - begin
        log.log(logging.INFO if is_mendable else logging.DEBUG, "the event loop is free again, after %.2f s", held)

    def _place(self, frame: FrameType | None) -> tuple[str, str, int]:
        """The route that blocks the loop, or the innermost frame outside libraries, with file and line; "" if none."""
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
    """The stack as text, without frames of tinysvc and the loop, unless there are no others."""
    stack = traceback.extract_stack(frame)
    begin = max([number for number, entry in enumerate(stack, 1) if entry.filename.endswith(_LOOP)], default=0)
    authors = [entry for entry in stack[begin:] if not any(hidden in entry.filename for hidden in HIDDEN_FRAMES)]
    return "".join(traceback.StackSummary.from_list(authors or stack).format()).rstrip()


@contextmanager
def watched(
    loop: asyncio.AbstractEventLoop, routes: Mapping[CodeType, str], on_block: Callable[[str], None] | None = None
) -> Iterator[None]:
    """A watchdog while the block runs. Enter and leave it in the loop's own thread."""
    watchdog = Watchdog(loop, routes, on_block)
    try:
        yield
    finally:
        watchdog.stop()
