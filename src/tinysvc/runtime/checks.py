"""Checks of a route at start-up, before anything is open: ConfigurationError, with the remedy."""

from __future__ import annotations

import inspect
import pickle
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

from ..core.errors import ConfigurationError
from ..core.settings import Settings
from ..service.job_checks import check_job_route
from ..service.job_verbs import VERBS
from ..service.plan import Plan, has_body, has_parameter
from ..service.router import Router
from ..service.routes import Given
from ..web.websocket import WebSocket
from ..web.websocket_route import socket_parameter
from .background import Background
from .endpoint_parts import Durable, Endpoint
from .job import Job


def endpoint_of(plan: Plan, settings: Settings) -> Endpoint:
    """The endpoint of a cpu route. ConfigurationError if workers cannot import its functions, or it needs the loop."""
    route = plan.route
    function = route.function
    decorator = "@job_route" if route.durable else "@cpu_route"
    check_job_route(plan)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError.at(
            function, f"is async, but {decorator} runs it in a worker, which has no event loop; make it a plain def"
        )
    if has_parameter(function, WebSocket):
        raise ConfigurationError.at(
            function, "takes a WebSocket, which lives on the event loop; use @io_route, and await call(...) in it"
        )
    if has_parameter(function, Background):
        raise ConfigurationError.at(
            function,
            f"takes Background, but {decorator} runs it in a worker, and the tasks run on the event loop of the "
            "server; take it in an @io_route, and await call(...) in it, or in an @io_resource of the request",
        )
    if route.durable is None:
        refuse_job(plan)
    else:
        _check_durable(plan, settings)
    resources = {name: resource.function for name, resource in plan.cpu_resources.items()}
    in_thread = not settings.cpu_workers and not isinstance(settings.pools.get(route.pool), Executor)
    checks = {name: resource.check for name, resource in plan.cpu_resources.items() if resource.check is not None}
    importable: tuple[Callable[..., Any], ...] = (
        function,
        *resources.values(),
        *plan.error_handlers.values(),
        *checks.values(),
        *([plan.candidate.compare] if plan.candidate is not None and plan.candidate.compare is not None else ()),
    )
    for needed in () if in_thread else importable:
        _check_picklable(needed) if isinstance(needed, Given) else _check_importable(needed)
    return Endpoint(
        function,
        route.parameters,
        resources,
        frozenset(name for name, resource in plan.cpu_resources.items() if resource.shared),
        route.batch,
        plan.path,
        settings.compress,
        plan.max_body_size(settings),
        frozenset(plan.request_resources.keys() & plan.binder.resources),
        dict(plan.error_handlers),
        has_body(route.methods),
        None
        if route.durable is None
        else Durable(settings.max_result_size, route.durable.on_unreadable_save == "restart"),
        {name: kind.of_service(settings) for name, kind in plan.made_by_service.items()},
        bool(settings.traces),
        {
            name: {parameter: taken.artifact.reference for parameter, taken in artifacts.items()}
            for name, artifacts in plan.artifacts.items()
        },
        checks,
    )


def refuse_job(plan: Plan) -> None:
    """ConfigurationError if the handler, which is none of a job route, takes a Job."""
    function = plan.route.function
    if has_parameter(function, Job):
        raise ConfigurationError.at(
            function,
            f"takes a Job, but its requests are no durable jobs; give it @job_route, not @{plan.route.kind}_route",
        )


def _check_durable(plan: Plan, settings: Settings) -> None:
    """Check that the attempts of a job route can be killed."""
    route = plan.route
    if isinstance(settings.pools.get(route.pool), Executor):
        raise ConfigurationError.at(
            route.function,
            f"cannot run in the pool {route.pool!r}: that is an executor, which cannot kill a job that is cancelled; "
            f'let tinysvc start its workers: pools={{"{route.pool}": Pool(workers=2)}}',
        )


def _check_picklable(given: Given) -> None:
    try:
        pickle.dumps(given)
    except Exception as error:
        raise ConfigurationError(
            f"the override of a cpu_resource, {given.value!r}, cannot be sent to a worker: {error}; "
            "give a function at a module's top level, which opens it there"
        ) from None


def _check_importable(function: Callable[..., Any]) -> None:
    """A worker imports a function by its module and name, as pickle does."""
    name = function.__qualname__
    if "<lambda>" in name or "<locals>" in name:
        kind = "a lambda" if "<lambda>" in name else "defined inside another function"
        raise ConfigurationError.at(
            function, f"is {kind}, which a worker cannot import; define it with def at the module's top level"
        )
    found: Any = sys.modules.get(function.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise ConfigurationError.at(
            function,
            f"{function.__module__}.{name} is not this function: a worker would import another one; "
            "put the tinysvc decorator on top of the others, and give every handler a name of its own",
        )


def check(plan: Plan) -> None:
    """Check one route. ConfigurationError for a mistake in it."""
    if plan.route.kind == "cpu":
        endpoint_of(plan, Settings())
    else:
        socket_parameter(plan)
        refuse_job(plan)


def check_paths(plans: Iterable[Plan]) -> None:
    """ConfigurationError if two routes have the same path and method."""
    table: Router[Callable[..., Any]] = Router()
    for plan in plans:
        route = plan.route
        table.add(plan.path, route.methods, route.function, route.function)
        for verb in VERBS if route.durable else ():
            if verb.name != "submit":  # it is the method of the route itself
                table.add(verb.path(plan.path), [verb.method], route.function, route.function)
