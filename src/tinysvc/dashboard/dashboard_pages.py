"""The page /dashboard, the events that it shows, and its buttons.

    GET  /dashboard          the page itself, without data
    GET  /dashboard/events   server-sent events: "charts", and "now" each second
    POST /dashboard/stacks   the Python stacks of a worker, as text
    POST /dashboard/replace  start a successor of a worker

The page is behind the middleware of the service; its data and buttons are behind the guard, or for loopback only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import HTTPError
from ..core.requests import Request
from ..core.responses import EVENTS, TEXT, Handler, Response
from ..runtime.route_handlers import is_live
from ..runtime.running_service import RunningService
from ..web.offline_page import offline_page
from ..web.websocket_route import socket_parameter
from .access import check_origin, check_peer
from .live import MAX_VIEWERS, EncodedEvents, Live, Read
from .own_process import OwnProcess
from .page_document import RouteAbout

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool

FOLDER = Path(__file__).parent / "page"


class Dashboard:
    """The dashboard of one server process.

    Args:
        running: The service.
        read: Collects the metrics: see live.py.
    """

    def __init__(self, running: RunningService, read: Read) -> None:
        self._running = running
        self.own_process = OwnProcess(running)
        self.live = Live(read, routes_of(running), os.getpid())
        running.on_error = self.own_process.note_error

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """The handlers by method and path."""
        guarded = self._guarded
        return {
            ("GET", "/dashboard"): offline_page(FOLDER, ("charts.js", "page.js")),
            ("GET", "/dashboard/events"): guarded(self.events),
            ("POST", "/dashboard/stacks"): guarded(self.stacks),
            ("POST", "/dashboard/replace"): guarded(self.replace),
        }

    def _guarded(self, handler: Handler) -> Handler:
        guard = self._running.page_guard
        return guard(handler) if guard is not None else partial(_on_this_machine, handler)

    async def events(self, request: Request) -> Response:
        """The stream of a page."""
        if self.live.viewers >= MAX_VIEWERS:
            raise HTTPError(503, f"{MAX_VIEWERS} pages of the dashboard are open; close one.")
        return Response(EncodedEvents(self.live), headers=[("cache-control", "no-cache")], content_type=EVENTS)

    async def stacks(self, request: Request) -> Response:
        """The stacks of the worker that the query names."""
        check_origin(request)
        pool, number = self._worker(request)
        try:
            text = await pool.stacks(number)
        except LookupError as error:
            raise HTTPError(404, f"{error}.") from None
        except TimeoutError as error:
            raise HTTPError(504, f"{error}.") from None
        return Response(text.encode(), headers=[("cache-control", "no-store")], content_type=TEXT)

    async def replace(self, request: Request) -> Response:
        """Replace the worker that the query names, after its job."""
        check_origin(request)
        pool, number = self._worker(request)
        try:
            pool.replace(number)
        except LookupError as error:
            raise HTTPError(404, f"{error}.") from None
        return Response(b"", 204)

    def _worker(self, request: Request) -> tuple[ProcessPoolExecutor | ExternalPool, int]:
        given = {name: values[-1] for name, values in request.query.items()}
        process, name, number = (given.get(key, "") for key in ("process", "pool", "worker"))
        if process != str(os.getpid()):
            raise HTTPError(421, f"The worker belongs to the server process {process[:20]}; this is {os.getpid()}.")
        pool = next((pool for pool in self._running.pools if pool.name == name), None)
        if pool is None or not (number.isascii() and number.isdigit() and len(number) < 10):
            raise HTTPError(404, "There is no such worker.")
        return pool, int(number)


async def _on_this_machine(handler: Handler, request: Request) -> Response:
    check_peer(request)
    return await handler(request)


def routes_of(running: RunningService) -> dict[str, RouteAbout]:
    """The routes by method and path."""
    found = {}
    for plan in running.plans:
        route = plan.route
        about = RouteAbout(
            "job" if route.durable else route.kind,
            route.pool if route.kind == "cpu" else "",
            is_stream=is_live(plan) or bool(socket_parameter(plan)),
        )
        found.update({f"{method} {plan.path}": about for method in route.methods})
    return found
