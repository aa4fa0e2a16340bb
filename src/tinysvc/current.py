"""The request that an author's log line belongs to: the line ends as one from a worker does.

    INFO shop: sold [GET /items/{name}, request 8f2c-1]

No request pays for it. A connection is listed once, under its task; a thread while it runs a handler. The request is
looked for when a line is written.
"""

from __future__ import annotations

import asyncio
import logging
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .messages import Request


class Serves(Protocol):
    """A connection."""

    def at_work_on(self) -> Request | None:
        """The request whose handler, stream or cleanup runs."""


by_task: dict[Any, Serves] = {}
"""The connections, under the tasks that serve them."""

by_thread: dict[int, Serves] = {}
"""Those whose handlers run in threads, under the threads."""


def connection() -> Serves | None:
    """The connection that the caller runs for."""
    if found := by_thread.get(get_ident()):
        return found
    try:
        return by_task.get(asyncio.current_task())
    except RuntimeError:  # no event loop runs here
        return None


class LogFormatter(logging.Formatter):
    """Lines that name route and request, where they are the author's and a request is at work."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        is_ours = record.name == "tinysvc" or record.name.startswith("tinysvc.")  # they name the request if it matters
        found = None if is_ours or hasattr(record, "worker") else connection()
        if found and (request := found.at_work_on()):
            route = request.served_by.route_of(request) if hasattr(request, "served_by") else ""
            where = ", ".join([*([route] if route else []), f"request {request.id}"])
            first, newline, more = record.message.partition("\n")
            record.message = f"{first} [{where}]{newline}{more}"
        return super().formatMessage(record)


def start_log(level: str, form: str) -> None:
    """Write what is logged to standard error, unless the author has set up the root logger."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(form))
    logging.basicConfig(level=level.upper(), handlers=[handler])
