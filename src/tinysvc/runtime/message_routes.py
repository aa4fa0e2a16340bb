"""The routes of a running service as a protocol of messages serves them, such as gRPC: each is a second handler.

What is around the handler is the same as over HTTP: limits, deadlines, resources of the request, middleware, error
handlers. A cpu route has a second endpoint in the same workers, and shares its lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.responses import Handler
from ..service.plan import Plan
from .messages import Messages

if TYPE_CHECKING:
    from .endpoint_parts import Endpoint
    from .route_handlers import RouteHandlers

MessagesOf = Callable[[Sequence[Plan]], Mapping[Plan, Messages]]
"""The routes that are served by messages, too. ConfigurationError for a route whose types have no message."""


class MessageRoute(NamedTuple):
    """One route, ready to be served. The body of a request is its message."""

    plan: Plan
    messages: Messages
    handler: Handler
    """It raises what the author's function raises: see `RunningService.respond_to_error`."""


class MessageRoutes:
    """The routes of one running service that take messages, too.

    Args:
        messages_of: Finds them; None: there are none.
    """

    def __init__(self, messages_of: MessagesOf | None) -> None:
        self.routes: list[MessageRoute] = []
        self.jobs: dict[Plan, Handler] = {}  # handlers of cpu routes: RunningService makes them with their pools
        self._messages_of = messages_of
        self._messages: Mapping[Plan, Messages] = {}
        self._numbers: dict[Plan, int] = {}

    def find(self, plans: Sequence[Plan]) -> None:
        """Find the routes, before anything is open. ConfigurationError for a type that has no message."""
        if self._messages_of is not None:
            self._messages = self._messages_of(plans)

    def beside(self, plans: Sequence[Plan], endpoints: list[Endpoint]) -> list[Endpoint]:
        """The endpoints of a pool, and behind them those for messages."""
        every = list(endpoints)
        for plan, endpoint in zip(plans, endpoints, strict=True):
            if messages := self._messages.get(plan):
                self._numbers[plan] = len(every)
                every.append(endpoint._replace(messages=messages, compress=False))
        return every

    def number_of(self, plan: Plan) -> int | None:
        """The position of a route's endpoint for messages in the program of its pool; None if it has none."""
        return self._numbers.get(plan)

    def add(self, plan: Plan, handlers: RouteHandlers, values: Mapping[str, Any]) -> None:
        """Make the handler of a route, if it takes messages. `values`: resources that are open for the whole server."""
        messages = self._messages.get(plan)
        if messages is not None:
            handler = self.jobs.get(plan) or handlers.message_handler(plan, messages, values)
            handler = handlers.outermost(plan, handlers.with_options(plan, handler, values, messages))
            self.routes.append(MessageRoute(plan, messages, handler))
