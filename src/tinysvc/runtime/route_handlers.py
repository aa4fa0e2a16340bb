"""The handler of each route, built once at start-up: the author's function with the options of its route around it.

From the outside:

    credentials, middleware, a body limit, error handlers, a limit, background tasks, a deadline,
    resources of the request, a cache, a live stream's beginning, on_disconnect, compression, the function

A route has only those around it that it uses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigurationError
from ..core.requests import Request
from ..core.responses import ENDLESS_TYPES, Handler, Middleware, Response
from ..core.settings import Settings
from ..service.error_handlers import with_error_handlers
from ..service.plan import Wiring, credentials_of, max_body_size, takes
from ..service.resources import read_by
from ..web.websocket_route import socket_handler, socket_parameter
from .background import Background, BackgroundTasks
from .io_handlers import io_handler, with_on_disconnect
from .limits import IoLimit, UnstartedStreams, limited_body, limited_time, with_kept_form
from .middleware import within
from .open_resources import Scope

if TYPE_CHECKING:
    from .caching import Results


class RouteHandlers:
    """Builds the handlers of one service.

    Args:
        settings: The server's settings.
        background: The background tasks of all requests.
        error_response: The response to an error; `call_next` of middleware returns it.
    """

    def __init__(
        self,
        settings: Settings,
        background: BackgroundTasks,
        error_response: Callable[[BaseException, Request], Response],
    ) -> None:
        self._settings = settings
        self._background = background
        self._error_response = error_response
        self._io_limit = IoLimit(settings.max_io_requests) if settings.max_io_requests else None
        self._results: Results | None = None  # of all routes with cache=
        self.unstarted_streams = UnstartedStreams()

    def io_handler(self, wiring: Wiring, resources: Mapping[str, Any]) -> Handler:
        """The function of an io route, its compression and its `on_disconnect`."""
        route, binder, scoped = wiring.mounted.route, wiring.binder, bool(wiring.of_request)
        if socket := socket_parameter(wiring):
            return socket_handler(
                route.function,
                socket,
                lambda request: binder.bind(request, b"", request.resources if scoped else resources),
            )
        limit = max_body_size(wiring.mounted, self._settings)
        handler = io_handler(route.function, binder, resources, limit, scoped=scoped)
        if self._settings.compress:
            from ..web.compression import compressed  # imported only where it is used

            handler = compressed(handler)
        if route.on_disconnect:
            handler = with_on_disconnect(handler, route.on_disconnect == "cancel")
        return handler

    def with_options(self, wiring: Wiring, handler: Handler, once: Mapping[str, Any]) -> Handler:
        """`handler` with what its route asks for inside the error handlers.

        Args:
            wiring: The route.
            handler: Its io handler or cpu handler.
            once: Values of the resources that are open for the whole server.
        """
        route = wiring.mounted.route
        if is_live(wiring):
            handler = self.unstarted_streams.around(handler, wiring.binder.stream_type)
        if route.cache:
            handler = self._cached(wiring, handler)
        if wiring.of_request:
            timeout = route.timeout if route.kind == "io" else None
            scope = Scope(
                wiring.of_request,
                wiring.binder,
                once,
                sent=route.kind == "cpu",
                timeout=timeout or None,
                apart=bool(wiring.mounted.middleware),
            )
            handler = scope.around(handler)
        if route.kind == "io" and route.timeout and not wiring.of_request:
            handler = limited_time(handler, route.timeout)
        if takes(Background, wiring):
            handler = self._background.around(handler)
        if route.kind == "cpu":
            return handler
        if route.limit:
            handler = IoLimit(route.limit, "this route").around(handler)
        return self._io_limit.around(handler) if self._io_limit else handler

    def outermost(self, wiring: Wiring, handler: Handler) -> Handler:
        """`handler` with the error handlers, the body limit, the middleware and the Cache-Control of its route."""
        mounted = wiring.mounted
        if mounted.error_handlers:
            handler = with_error_handlers(handler, mounted.error_handlers, mounted.route.kind)
        if mounted.route.max_body_size is not None:
            handler = limited_body(handler, mounted.route.max_body_size)
        if mounted.middleware:
            handler = self.within(mounted.middleware, handler)
            if mounted.route.kind == "cpu" or wiring.binder.body_kind in ("bytes", "json"):
                handler = with_kept_form(handler)
        if not mounted.route.cache and (credentials := credentials_of(wiring)):
            from .caching import private_to  # imported only where a route takes credentials

            handler = private_to(handler, credentials)
        return handler

    def within(self, middleware: tuple[Middleware, ...], handler: Handler) -> Handler:
        """`handler` with the middleware around it, the first outermost."""
        return within(middleware, handler, self._error_response)

    def _cached(self, wiring: Wiring, handler: Handler) -> Handler:
        from .caching import CachedRoute, Results  # imported only where a route has a cache

        binder, route = wiring.binder, wiring.mounted.route
        assert route.cache is not None
        if binder.takes_request and not route.cache.headers:
            raise ConfigurationError.at(
                route.function,
                "has cache= and takes the Request, so the cache does not know which request headers the result "
                "depends on; take them as parameters (Annotated[str, Header()]), or name them: "
                'cache=Cache(60, headers=["accept"])',
            )
        self._results = self._results or Results(self._settings.max_cache_size)
        vary, private = read_by(wiring.of_request, {*wiring.once, *wiring.of_request})
        return CachedRoute(
            handler, route, self._results, binder.headers, self._settings.compress, vary=vary, private=private
        )


def is_live(wiring: Wiring) -> bool:
    """Whether the route responds with a stream that may have no end, or whose first item decides that."""
    function, stream_type = wiring.mounted.route.function, wiring.binder.stream_type
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return stream_type in ENDLESS_TYPES or (generates and not stream_type)
