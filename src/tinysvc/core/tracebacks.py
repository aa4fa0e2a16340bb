"""Tracebacks for the log: only the frames of the author, and no line that looks like the beginning of a record."""

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
    "/anyio/_backends/_asyncio.py",  # in whose threads a `def` handler of an io route runs
    f"python{sys.version_info.major}.{sys.version_info.minor}/contextlib.py",
)


def author_traceback(error: BaseException) -> str:
    """The traceback as text, from the author's first frame on: ours and the import system's are left out, also of the
    errors that it came from.

    An error of which no frame is the author's is shown whole: then it is ours, or the interpreter's. Errors of this
    module say all in their sentence.
    """
    if isinstance(error, TinysvcError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    shown = traceback.TracebackException.from_exception(error)
    chain: list[tuple[traceback.TracebackException | None, BaseException | None]] = [(shown, error)]
    for each, raised in chain:
        if each and raised:
            _leave_authors(each, raised)
            chain += (each.__cause__, raised.__cause__), (each.__context__, raised.__context__)
    return "".join(shown.format()).rstrip()


def _leave_authors(shown: traceback.TracebackException, error: BaseException) -> None:
    authors = [frame for frame in shown.stack if not any(hidden in frame.filename for hidden in HIDDEN_FRAMES)]
    if authors or isinstance(error, SyntaxError):  # that one names its place itself
        shown.stack = traceback.StackSummary.from_list(authors)


INDENT = "    "
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def indented(text: str) -> str:
    """Text for the log, of which no line but the first stands at the margin, and none is moved there by a terminal."""
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text.replace("\n", f"\n{INDENT}")


error_observers: list[Callable[[BaseException], None]] = []
"""Called for each error of a handler that is not an answer on purpose, in the thread where it came up: for tests."""


def observe_error(error: BaseException) -> None:
    for each in error_observers.copy():  # another thread may serve, and end, meanwhile
        each(error)
