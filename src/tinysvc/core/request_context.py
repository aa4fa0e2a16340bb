"""The request that code works for: its id and route, for log lines and for the author.

    INFO shop: sold [GET /items/{name}, request 8f2c-1]

In a worker, each job sets them. On the event loop no request pays for them: a connection is listed once under its task,
and under a thread while that runs a handler. The request is looked for when a value is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from .requests import Request


class RequestOwner(Protocol):
    """A connection, or a background task."""

    def current_request(self) -> Request | None:
        """The request whose handler, stream or cleanup runs."""


owner_by_task: dict[Any, RequestOwner] = {}
"""The connections, under the tasks that serve them."""

owner_by_thread: dict[int, RequestOwner] = {}
"""Those whose handlers run in threads, under the threads."""


def register_task(task: asyncio.Task[Any], serves: RequestOwner | None) -> None:
    """Until it ends, `task` runs for `serves`."""
    if serves is not None:
        owner_by_task[task] = serves
        task.add_done_callback(owner_by_task.pop)


def current_owner() -> RequestOwner | None:
    """The connection, or the background task, that the caller runs for."""
    if found := owner_by_thread.get(get_ident()):
        return found
    if not owner_by_task:
        return None  # a worker does not load asyncio
    from asyncio import current_task

    try:
        return owner_by_task.get(current_task())
    except RuntimeError:  # no event loop runs here
        return None


class RequestVariable:
    """A text about the request that the calling code works for, in a worker and on the event loop.

    It is used like a `ContextVar`. A task or a thread that a handler starts itself does not know its request: there the
    text is empty, unless the handler has called `set` before.
    """

    def __init__(self, name: str, of_request: Callable[[Request], str]) -> None:
        variable: ContextVar[str] = ContextVar(name, default="")
        self._variable = variable
        self._of_request = of_request
        self.set = variable.set  # as fast as that: each job of a worker does it
        """Replace the text for the rest of the request, also in the tasks and threads that are started from now on."""
        self.reset = variable.reset
        """Undo a `set`, by the token that it has returned."""

    def get(self) -> str:
        """The text; empty where no request is at work."""
        if text := self._variable.get():
            return text
        found = current_owner()
        request = found.current_request() if found else None
        return self._of_request(request) if request else ""


def _route_of(request: Request) -> str:
    return request.served_by.route_of(request) if hasattr(request, "served_by") else ""


request_id = RequestVariable("request_id", lambda request: request.id)
"""The id of the request that the calling code works for. For a batch: all ids, separated by commas.

`request_id.get()` returns the client's `X-Request-Id`, or an id that the server has made. It works in handlers,
streams, resources, middleware and background tasks, on the event loop, in threads of the server and in workers.
Elsewhere it returns "". A task or thread that a handler starts itself has the id only if the handler has called
`request_id.set(request_id.get())` before.

Example:
    ```python
    from tinysvc import io_route, request_id

    @io_route("/where")
    async def where() -> str:
        return f"this is request {request_id.get()}"
    ```
"""

route_name = RequestVariable("route_name", _route_of)
"""Method and path pattern of that request, as in "POST /predict"."""


class LogFormatter(logging.Formatter):
    """Lines that name route and request, where they are the author's and a request is at work."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        is_ours = record.name == "tinysvc" or record.name.startswith("tinysvc.")  # they name the request if it matters
        if not is_ours and not hasattr(record, "worker") and (identity := request_id.get()):
            where = ", ".join(filter(None, (route_name.get(), f"request {identity}")))
            first, newline, more = record.message.partition("\n")
            record.message = f"{first} [{where}]{newline}{more}"
        return super().formatMessage(record)


def configure_logging(level: str, form: str) -> None:
    """Write what is logged to standard error, unless the author has set up the root logger."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter(form))
    logging.basicConfig(level=level.upper(), handlers=[handler])
