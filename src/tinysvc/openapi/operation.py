"""An operation of the OpenAPI document: a route, with the inputs of its handler and of its resources."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, get_args

from ..binding.annotations import hints_of, without_annotated
from ..binding.binder import Binder
from ..binding.inputs import Input
from ..core.settings import Settings
from ..service.plan import Wiring
from ..service.routes import Given, Route


class Operation(NamedTuple):
    """A route, and each value that its handler or one of its resources takes from a request."""

    wiring: Wiring
    inputs: list[Input]

    @property
    def route(self) -> Route:
        return self.wiring.mounted.route

    @property
    def path(self) -> str:
        return self.wiring.mounted.path

    @property
    def returns(self) -> Any:
        """The handler's return annotation; inspect.Parameter.empty without one. For a batch, that of one item."""
        found = hints_of(self.route.function).get("return", inspect.Parameter.empty)
        return (get_args(without_annotated(found)) or [Any])[0] if self.route.batch else found

    @property
    def tags(self) -> list[str]:
        return [self.wiring.mounted.name, *self.route.about.get("tags", ())]

    def execution(self, settings: Settings) -> dict[str, Any]:
        """The extension `x-tinysvc`: kind and pool, and the options timeout, limit, batch and cache if set."""
        route = self.route
        found: dict[str, Any] = {"kind": route.kind}
        if route.kind == "cpu":
            found["pool"] = route.pool
        options = {
            "timeout": route.timeout_or(settings.cpu_timeout) if route.kind == "cpu" else route.timeout,
            "limit": route.limit,
            "batch": route.batch and {"size": route.batch.size, "wait": route.batch.wait},
            "cache": route.cache and route.cache.seconds,
        }
        return found | {name: value for name, value in options.items() if value}


def operation_of(wiring: Wiring) -> Operation:
    """The operation of a route. Resources that are opened once for the server take nothing from a request."""
    known = {*wiring.of_request, *wiring.once}
    binders = [
        Binder(resource.function, (), known)
        for resource in wiring.of_request.values()
        if not isinstance(resource.function, Given)
    ]
    return Operation(wiring, [each for binder in (wiring.binder, *binders) for each in binder.inputs])
