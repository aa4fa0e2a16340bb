"""Tracebacks for the log: only the author's frames, indented."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from .errors import TinysvcError

HIDDEN_FRAMES = (
    str(Path(__file__).parents[1]) + "/",
    "<frozen importlib",
    "<frozen runpy",
    "/importlib/__init__.py",
    "/multiprocessing/spawn.py",
    "/anyio/to_thread.py",
    "/anyio/_backends/_asyncio.py",  # its threads run the `def` handlers of io routes
    f"python{sys.version_info.major}.{sys.version_info.minor}/contextlib.py",
)


def author_traceback(error: BaseException) -> str:
    """The traceback as text, without frames of tinysvc and of the import system; also for its causes.

    A traceback without any frame of the author is shown whole: the error is in tinysvc or in the interpreter. A
    TinysvcError is shown without a traceback: its sentence is enough.
    """
    if isinstance(error, TinysvcError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    shown = traceback.TracebackException.from_exception(error)
    chain: list[tuple[traceback.TracebackException | None, BaseException | None]] = [(shown, error)]
    for each, raised in chain:
        if each and raised:
            _hide_frames(each, raised)
            chain += (each.__cause__, raised.__cause__), (each.__context__, raised.__context__)
    return "".join(shown.format()).rstrip()


def _hide_frames(shown: traceback.TracebackException, error: BaseException) -> None:
    authors = [frame for frame in shown.stack if not any(hidden in frame.filename for hidden in HIDDEN_FRAMES)]
    if authors or isinstance(error, SyntaxError):  # a SyntaxError names its file and line itself
        shown.stack = traceback.StackSummary.from_list(authors)


MAX_LINE_TEXT = 1000
"""Characters of a text in the middle of a log line, such as the name of a logger, file, function, thread or route."""

INDENT = "    "
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def indented(text: str) -> str:
    """Text for the log. Further lines are indented and control characters escaped: no line looks like a new record."""
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", f"\n{INDENT}")


error_observers: list[Callable[[BaseException], None]] = []
"""Called for each unexpected error of a handler, in the thread of the error: for tests (testing.py)."""


def observe_error(error: BaseException) -> None:
    """Pass an unexpected error of a handler to the observers."""
    for each in error_observers.copy():  # a server in another thread may remove its observer meanwhile
        each(error)


def one_line(text: str) -> str:
    """Text for the middle of a log line: cut to MAX_LINE_TEXT characters, control characters escaped."""
    text = text[:MAX_LINE_TEXT]
    return text if text.isprintable() else text.encode("unicode_escape").decode()
