"""An operation of the OpenAPI document: a route, with the inputs of its handler and of its resources."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, get_args

from ..binding.annotations import hints_of, without_annotated
from ..binding.inputs import Input
from ..core.settings import Settings
from ..service.plan import Plan
from ..service.routes import Route


class Operation(NamedTuple):
    """A route, and each value that its handler or one of its resources takes from a request."""

    plan: Plan
    inputs: list[Input]

    @property
    def route(self) -> Route:
        return self.plan.route

    @property
    def path(self) -> str:
        return self.plan.path

    @property
    def returns(self) -> Any:
        """The handler's return annotation; inspect.Parameter.empty without one. For a batch, that of one item."""
        found = hints_of(self.route.function).get("return", inspect.Parameter.empty)
        return (get_args(without_annotated(found)) or [Any])[0] if self.route.batch else found

    @property
    def tags(self) -> list[str]:
        return [self.plan.mount.name, *self.route.about.get("tags", ())]

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


def operation_of(plan: Plan) -> Operation:
    """The operation of a route. Resources that are opened once for the server take nothing from a request."""
    return Operation(plan, plan.inputs)
