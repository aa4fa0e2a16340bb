"""Routes whose handler takes a WebSocket: the check at start-up, and their handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..binding.annotations import without_annotated
from ..core.errors import ConfigurationError, HTTPError
from ..core.optional_libraries import missing_library
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..service.plan import Plan
from .websocket import WebSocket
from .websocket_protocol import INTERNAL, NORMAL, POLICY, SocketClosed, shortened_reason


def socket_parameter(plan: Plan) -> str:
    """The name of the handler's parameter of type WebSocket; "" if there is none.

    Raises:
        ConfigurationError: If the route cannot serve a WebSocket.
    """
    route, binder = plan.route, plan.binder
    sockets = [name for name, each in binder.parameters.items() if without_annotated(each.annotation) is WebSocket]
    name = sockets[0] if sockets else ""
    if name and (route.methods != ("GET",) or not inspect.iscoroutinefunction(route.function) or binder.body_kind):
        raise ConfigurationError.at(
            route.function,
            "takes a WebSocket, which begins with a GET request without a body: make it async def, for GET only",
        )
    if name and route.timeout:
        raise ConfigurationError.at(
            route.function, "takes a WebSocket, which stays open for a long time: remove timeout"
        )
    if name and (missing := missing_library("websockets")):
        raise ConfigurationError.at(route.function, missing)
    return name


def socket_handler(function: Callable[..., Any], name: str, bind: Callable[[Request], Mapping[str, Any]]) -> Handler:
    """The handler of a route whose function takes the WebSocket as its parameter `name`."""

    async def handle(request: Request) -> Response:
        arguments = bind(request)
        socket: WebSocket = arguments[name]
        try:
            await function(**arguments)
        except SocketClosed:
            pass
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if socket.accepted:
                await socket.end(*_close_frame_of(error))
            raise  # after `accept`, too: resources roll back, and the error is logged, as for any other route
        if not socket.accepted:
            raise HTTPError(403, "The WebSocket was not accepted.")
        await socket.end(NORMAL, "")
        return Response(b"", 204)  # it is not sent: the connection is upgraded

    return handle


def _close_frame_of(error: BaseException) -> tuple[int, str]:
    """Code and reason of the close frame after an error of the handler. An unexpected error is not sent."""
    return (POLICY, shortened_reason(error.detail)) if isinstance(error, HTTPError) else (INTERNAL, "")
