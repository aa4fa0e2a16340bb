"""The current request, for log lines and for the author: `request_id` and `route_name`.

    INFO shop: sold [GET /items/{name}, request 8f2c-1]

In a worker, each job sets both variables. On the event loop they cost a request nothing: a connection is registered
once under its task, and under a thread while the thread runs a handler. The request is looked up when a value is read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from .requests import Request


class RequestOwner(Protocol):
    """A connection or a background task: it knows its current request."""

    def current_request(self) -> Request | None:
        """The request whose handler, stream or cleanup runs now."""


owner_by_task: dict[Any, RequestOwner] = {}
"""Connections and background tasks by the asyncio task that serves them."""

owner_by_thread: dict[int, RequestOwner] = {}
"""The same by the id of the thread that runs their handler."""


def register_task(task: asyncio.Task[Any], owner: RequestOwner | None) -> None:
    """Register `task` as one that works for `owner`, until the task ends."""
    if owner is not None:
        owner_by_task[task] = owner
        task.add_done_callback(owner_by_task.pop)


def current_owner() -> RequestOwner | None:
    """The connection or background task that the calling code works for."""
    if found := owner_by_thread.get(get_ident()):
        return found
    if not owner_by_task:
        return None  # a worker must not import asyncio
    from asyncio import current_task

    try:
        return owner_by_task.get(current_task())
    except RuntimeError:  # no event loop runs in this thread
        return None


class RequestVariable:
    """A text about the current request, in a worker and on the event loop. It has the methods of a `ContextVar`.

    In a task or thread that a handler starts itself the text is empty, unless the handler has called `set` before.
    """

    def __init__(self, name: str, of_request: Callable[[Request], str]) -> None:
        variable: ContextVar[str] = ContextVar(name, default="")
        self._variable = variable
        self._of_request = of_request
        self.own = variable.get
        """The text that was set, "" if none was: without the request of the connection."""
        self.set = variable.set  # without a call in between: each job of a worker sets it
        """Replace the text for the rest of the request, also in tasks and threads that start from now on."""
        self.reset = variable.reset
        """Undo a `set`, with the token that it returned."""

    def get(self) -> str:
        """The text; empty outside a request."""
        if text := self._variable.get():
            return text
        found = current_owner()
        request = found.current_request() if found else None
        return self._of_request(request) if request else ""


def _route_of(request: Request) -> str:
    return request.served_by.route_of(request) if request.served_by is not None else ""


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
"""Method and path pattern of the current request, as in "POST /predict"."""

current_attempt: ContextVar[tuple[str, int]] = ContextVar("tinysvc_attempt", default=("", 0))
"""In a worker: the id of the durable job that runs, and the number of its attempt."""
