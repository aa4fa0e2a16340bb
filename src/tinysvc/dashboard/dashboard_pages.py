"""The page /dashboard, the events that it shows, and its buttons.

    GET  /dashboard          the page itself, without data
    GET  /dashboard/events   server-sent events: "charts", and "now" each second
    POST /dashboard/stacks   the Python stacks of a worker, as text
    POST /dashboard/replace  start a successor of a worker

The page is behind the middleware of the service; its data and buttons are behind the guard, or for loopback only.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

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
        self.ask: Callable[[int, bytes], Awaitable[bytes]] | None = None  # the answer of another server process
        running.on_error = self.own_process.note_error

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """The handlers by method and path."""
        guarded = self._guarded
        return {
            ("GET", "/dashboard"): offline_page(FOLDER, ("charts.js", "page.js"), ("credentials.js",)),
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
        text = await self._press("stacks", request)
        return Response(text.encode(), headers=[("cache-control", "no-store")], content_type=TEXT)

    async def replace(self, request: Request) -> Response:
        """Replace the worker that the query names, after its job."""
        await self._press("replace", request)
        return Response(b"", 204)

    async def _press(self, verb: str, request: Request) -> str:
        """The text of the pressed button. HTTPError if it could not be pressed."""
        check_origin(request)
        given = {name: values[-1] for name, values in request.query.items()}
        process, pool, worker = (given.get(key, "") for key in ("process", "pool", "worker"))
        if not all(each.isascii() and each.isdigit() and len(each) < 10 for each in (process, worker)):
            raise HTTPError(404, "There is no such worker.")
        press = Press(verb, pool, int(worker))
        if int(process) == os.getpid():
            pressed = await self.press(press)
        else:
            pressed = await self._press_elsewhere(int(process), press)
        if pressed.status != 200:
            raise HTTPError(pressed.status, pressed.text)
        return pressed.text

    async def _press_elsewhere(self, process: int, press: Press) -> Pressed:
        if self.ask is not None:
            try:
                return msgspec.json.decode(await self.ask(process, msgspec.json.encode(press)), type=Pressed)
            except TimeoutError:
                pass
        return Pressed(404, f"The server process {process} does not respond.")

    async def answer(self, question: bytes) -> bytes:
        """A button that was pressed at another server process."""
        return msgspec.json.encode(await self.press(msgspec.json.decode(question, type=Press)))

    async def press(self, press: Press) -> Pressed:
        """Press a button of a worker of this process."""
        pool = next((pool for pool in self._running.pools if pool.name == press.pool), None)
        if pool is None:
            return Pressed(404, "There is no such worker.")
        try:
            if press.verb == "stacks":
                return Pressed(200, await pool.stacks(press.worker))
            pool.replace(press.worker)
        except LookupError as error:
            return Pressed(404, f"{error.args[0]}.")
        except TimeoutError as error:
            return Pressed(504, f"{error}.")
        return Pressed(200, "")


class Press(msgspec.Struct):
    """A button of a worker."""

    verb: str
    """One of "stacks" and "replace"."""
    pool: str
    worker: int


class Pressed(msgspec.Struct):
    """What a button has done."""

    status: int
    """As in HTTP."""
    text: str


async def _on_this_machine(handler: Handler, request: Request) -> Response:
    check_peer(request)
    return await handler(request)


def routes_of(running: RunningService) -> dict[str, RouteAbout]:
    """The routes by method and path, and the methods of gRPC."""
    found = {}
    methods = {each.plan: each.messages for each in running.messages.routes}
    for plan in running.plans:
        route = plan.route
        about = RouteAbout(
            "job" if route.durable else route.kind,
            route.pool if route.kind == "cpu" else "",
            is_stream=is_live(plan) or bool(socket_parameter(plan)),
        )
        found.update({f"{method} {plan.path}": about for method in route.methods})
        if messages := methods.get(plan):
            found[f"RPC {messages.name}"] = replace(about, is_stream=messages.streams or messages.takes_stream)
    return found
