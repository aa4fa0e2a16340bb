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

from ..binding.message_binder import MessageBinder
from ..core.errors import ConfigurationError
from ..core.requests import Request
from ..core.responses import ENDLESS_TYPES, Handler, Middleware, Response
from ..core.settings import Settings
from ..service.error_handlers import with_error_handlers
from ..service.plan import Plan, credentials_of, takes_type
from ..service.resources import read_by
from ..web.websocket_route import socket_handler, socket_parameter
from .background import Background, BackgroundTasks
from .checks import refuse_job
from .io_handlers import io_handler, with_on_disconnect
from .limits import IoLimit, UnstartedStreams, limited_body, limited_time, with_kept_form, with_known_budget
from .middleware import within
from .open_resources import Scope

if TYPE_CHECKING:
    from .caching import ResponseCache
    from .messages import Messages
    from .served_artifacts import ServedArtifacts


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
        self._limits: dict[Plan, IoLimit] = {}
        self.response_cache: ResponseCache | None = None  # of all routes with cache=
        self.unstarted_streams = UnstartedStreams()
        self.artifacts: ServedArtifacts | None = None

    def io_handler(self, plan: Plan, resources: Mapping[str, Any]) -> Handler:
        """The function of an io route, its compression and its `on_disconnect`."""
        route, binder, scoped = plan.route, plan.binder, bool(plan.request_resources)
        refuse_job(plan)
        if socket := socket_parameter(plan):
            return socket_handler(
                route.function,
                socket,
                lambda request: binder.bind(request, b"", request.resources if scoped else resources),
            )
        limit = plan.max_body_size(self._settings)
        handler = io_handler(route.function, binder, resources, limit, scoped=scoped)
        if self._settings.compress:
            from ..web.compression import compressed  # imported only where it is used

            handler = compressed(handler)
        if route.on_disconnect:
            handler = with_on_disconnect(handler, route.on_disconnect == "cancel")
        return handler

    def message_handler(self, plan: Plan, messages: Messages, resources: Mapping[str, Any]) -> Handler:
        """The function of an io route, for messages."""
        from .message_handlers import message_handler  # imported only where messages are served

        binder = message_binder(plan, messages)
        scoped = bool(plan.request_resources)
        return message_handler(plan.route.function, binder, messages, resources, scoped=scoped)

    def with_options(
        self, plan: Plan, handler: Handler, once: Mapping[str, Any], messages: Messages | None = None
    ) -> Handler:
        """`handler` with what its route asks for inside the error handlers.

        Args:
            plan: The route.
            handler: Its io handler or cpu handler.
            once: Values of the resources that are open for the whole server.
            messages: How the messages of the route are read and written; None: the handler is for HTTP.
        """
        route, binder = plan.route, plan.binder
        if messages is not None:
            binder = message_binder(plan, messages)
        if is_live(plan):
            handler = self.unstarted_streams.around(handler, binder.stream_type)
        if route.cache:
            handler = self._cached(plan, handler)
        if plan.request_resources:
            timeout = route.timeout if route.kind == "io" else None
            scope = Scope(
                plan.request_resources,
                binder,
                once,
                sent=route.kind == "cpu",
                timeout=timeout or None,
                apart=bool(plan.middleware),
            )
            handler = scope.around(handler)
        if route.kind == "io" and route.timeout and not plan.request_resources:
            handler = limited_time(handler, route.timeout)
        handler = self.with_background(plan, handler)
        if route.kind == "cpu":
            return handler
        if route.limit:
            handler = self._limit_of(plan, route.limit).around(handler)
        return self._io_limit.around(handler) if self._io_limit else handler

    def _limit_of(self, plan: Plan, limit: int) -> IoLimit:
        """The limit of a route, which its requests and its messages share."""
        return self._limits.setdefault(plan, IoLimit(limit, "this route"))

    def with_background(self, plan: Plan, handler: Handler) -> Handler:
        """`handler` with the background tasks that its function, or a resource of its requests, adds."""
        return self._background.around(handler) if takes_type(Background, plan) else handler

    def outermost(self, plan: Plan, handler: Handler) -> Handler:
        """`handler` with the error handlers, the body limit, the middleware and the Cache-Control of its route."""
        if plan.error_handlers:
            handler = with_error_handlers(handler, plan.error_handlers, plan.route.kind)
        if plan.route.max_body_size is not None:
            handler = limited_body(handler, plan.route.max_body_size)
        if plan.middleware:
            handler = with_known_budget(self.within(plan.middleware, handler))
            if plan.route.kind == "cpu" or plan.binder.body_kind in ("bytes", "json"):
                handler = with_kept_form(handler)
        if not plan.route.cache and (credentials := credentials_of(plan)):
            from .caching import private_to  # imported only where a route takes credentials

            handler = private_to(handler, credentials)
        return handler

    def within(self, middleware: tuple[Middleware, ...], handler: Handler) -> Handler:
        """`handler` with the middleware around it, the first outermost."""
        return within(middleware, handler, self._error_response)

    def _cached(self, plan: Plan, handler: Handler) -> Handler:
        from .caching import CachedRoute, ResponseCache  # imported only where a route has a cache

        binder, route = plan.binder, plan.route
        assert route.cache is not None
        if binder.takes_request and not route.cache.headers:
            raise ConfigurationError.at(
                route.function,
                "has cache= and takes the Request, so the cache does not know which request headers the result "
                "depends on; take them as parameters (Annotated[str, Header()]), or name them: "
                'cache=Cache(60, headers=["accept"])',
            )
        self.response_cache = self.response_cache or ResponseCache(self._settings.max_cache_size)
        vary, private = read_by(plan.request_resources, {*plan.server_resources, *plan.request_resources})
        arguments = handler, route, self.response_cache, binder.headers, self._settings.compress
        if plan.artifacts and self.artifacts is not None:
            from .artifact_caching import VersionedCachedRoute

            served = self.artifacts.label_of(plan)
            return VersionedCachedRoute(*arguments, served=served, vary=vary, private=private)
        return CachedRoute(*arguments, vary=vary, private=private)


def message_binder(plan: Plan, messages: Messages) -> MessageBinder:
    """The binder of a route for messages."""
    codec = messages.codec
    return MessageBinder(plan.binder, codec.decode_arguments, codec.decode_request_item)


def is_live(plan: Plan) -> bool:
    """Whether the route responds with a stream that may have no end, or whose first item decides that."""
    function, stream_type = plan.route.function, plan.binder.stream_type
    generates = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    return stream_type in ENDLESS_TYPES or (generates and not stream_type)
