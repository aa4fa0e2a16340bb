"""What the operations of a route have in common: result type, tags and the extension `x-tinysvc`."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from ..binding.annotations import hints_of, without_annotated
from ..binding.results import is_stream
from ..core.settings import Settings
from ..service.plan import Plan
from ..service.routes import Route


def result_type(route: Route) -> Any:
    """The handler's return annotation; inspect.Parameter.empty without one. For a batch, that of one item."""
    found = hints_of(route.function).get("return", inspect.Parameter.empty)
    return (get_args(without_annotated(found)) or [Any])[0] if route.batch else found


def tags_of(plan: Plan) -> list[str]:
    """The name of the service, then the option `tags`."""
    return [plan.mount.name, *plan.route.about.get("tags", ())]


def execution(route: Route, settings: Settings) -> dict[str, Any]:
    """The extension `x-tinysvc`: kind, pool, whether it streams, and the other options if they are set."""
    found: dict[str, Any] = {"kind": "job" if route.durable else route.kind}
    if route.kind == "cpu":
        found["pool"] = route.pool
    options: dict[str, Any] = {
        "hedge": route.hedge,
        "timeout": route.timeout_or(settings.cpu_timeout) if route.kind == "cpu" else route.timeout,
        "limit": route.limit,
        "batch": route.batch and {"size": route.batch.size, "wait": route.batch.wait},
        "cache": route.cache and route.cache.seconds,
        "stream": not route.batch and is_stream(without_annotated(result_type(route))),
    }
    if route.durable is not None:
        retry = {"attempts": route.durable.retry.attempts, "wait": route.durable.retry.wait}
        options |= {"retry": retry, "keep": route.durable.keep, "every": route.durable.every}
        options["max_waiting"] = route.durable.max_waiting
        options["zone"] = route.durable.zone if route.durable.every else ""
    if route.is_idempotent is not None:
        found["idempotent"] = route.is_idempotent
    return found | {name: value for name, value in options.items() if value}
