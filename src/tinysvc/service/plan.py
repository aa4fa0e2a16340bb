"""The plan of each route: everything that it needs, found and checked before the server starts."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from ..binding.annotations import hints_of, signature_of
from ..binding.binder import Binder
from ..binding.inputs import Input
from ..binding.markers import ApiKey, Bearer, marker_in
from ..binding.results import is_stream
from ..core.errors import ConfigurationError
from ..core.responses import Middleware
from ..core.settings import Settings
from .artifact_parameters import TakenArtifact, artifacts_of, candidate_of, refuse_artifacts
from .error_handlers import ErrorHandler
from .resources import binders_of, in_order, made_parameters, names_per_request
from .routes import Given, Resource, Route, recorded
from .service import Mount, Service

if TYPE_CHECKING:
    from ..models.artifact import Artifact


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A route at its place, with everything that it needs. Resources are in the order in which they are opened."""

    route: Route
    path: str
    """The whole path."""
    mount: Mount
    """The service of the route."""
    binder: Binder
    cpu_resources: dict[str, Resource]
    """Opened by each worker, or in the forkserver if they are shared."""
    server_resources: dict[str, Resource]
    """io resources that the server opens once."""
    request_resources: dict[str, Resource]
    """io resources that are opened for each request."""

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """From the outermost to the innermost."""
        return self.mount.middleware + self.route.middleware

    @property
    def error_handlers(self) -> Mapping[type[Exception], ErrorHandler]:
        return self.mount.error_handlers

    @cached_property
    def made_by_service(self) -> dict[str, Any]:
        """The parameters that the service fills once, by their types: of the handler, and of its resources."""
        resources = {**self.cpu_resources, **self.server_resources, **self.request_resources}
        functions = [self.route.function, *(each.function for each in resources.values())]
        found = {name: kind for function in functions for name, kind in made_parameters(function).items()}
        return {name: kind for name, kind in found.items() if name not in resources}

    @cached_property
    def inputs(self) -> list[Input]:
        """All values that the handler, and the resources of its requests, take from what a client sends."""
        return [each for each in self.binder.inputs if each.travels] + self._resource_inputs

    @cached_property
    def artifacts(self) -> dict[str, dict[str, TakenArtifact]]:
        """The artifacts of its cpu resources: by the name of the resource, then of its parameter."""
        found = {name: artifacts_of(resource.function) for name, resource in self.cpu_resources.items()}
        return {name: artifacts for name, artifacts in found.items() if artifacts}

    @cached_property
    def candidate(self) -> Artifact | None:
        """The version that its requests try, too. Durable jobs do not."""
        taken = [each for artifacts in self.artifacts.values() for each in artifacts.values()]
        return None if self.route.durable is not None else candidate_of(self.route.function, taken)

    @cached_property
    def guard_inputs(self) -> list[Input]:
        """Those of the path, and of the resources of its requests: what each request about a durable job sends."""
        return [each for each in self.binder.inputs if each.place == "path"] + self._resource_inputs

    @cached_property
    def _resource_inputs(self) -> list[Input]:
        binders = binders_of(self.request_resources, {*self.server_resources, *self.request_resources})
        return [each for binder in binders for each in binder.inputs if each.travels]

    def max_body_size(self, settings: Settings) -> int:
        """Bytes."""
        size = self.route.max_body_size
        return settings.max_body_size if size is None else size


def plans_of(service: Service) -> Iterator[Plan]:
    """The plan of each route of a service and of the services inside it. ConfigurationError for the first mistake."""
    for mount in service.mounts():
        for route in mount.service.routes:
            yield plan_in(mount, route)


def plan_of(function: Callable[..., Any], route: Route) -> Plan:
    """The plan of a handler that another process serves, as its module shows it. ConfigurationError for a mistake.

    Its resources are those of a Service at the top level of its module that serves it, else all that the module knows.
    """
    found = list(vars(sys.modules[function.__module__]).values())
    for each in found:
        if isinstance(each, Service):
            for mount in each.mounts():
                if route in mount.service.routes:
                    return plan_in(mount, route)
    resources = [
        each
        for each in found
        if isinstance(each, types.FunctionType) and any(isinstance(record, Resource) for record in recorded(each))
    ]
    service = Service(function, *resources)
    return plan_in(next(service.mounts()), route)


def plan_in(mount: Mount, route: Route) -> Plan:
    """The plan of a route of this mount. ConfigurationError for the first mistake."""
    resources = mount.service.resources
    parameters = signature_of(route.function)
    refuse_artifacts(route.function, parameters)
    named = [
        name
        for name, parameter in parameters.items()
        if name not in route.parameters and marker_in(parameter.annotation) is None
    ]
    _check_no_resource_left_out(mount, route, named)
    asked = [name for name in named if name in resources]
    own = in_order([name for name in asked if resources[name].kind == route.kind], resources)
    others = in_order([name for name in asked if resources[name].kind == "io" != route.kind], resources)
    sent = names_per_request(others)
    for name in asked:
        if name not in own and name not in sent:
            raise _wrong_kind(mount, route, name)
    _check_can_finish(route)
    binder = Binder(
        route.function, route.parameters, asked, batched=route.batch is not None, has_body=has_body(route.methods)
    )
    _check_item_stream(route, binder)
    on_loop = own if route.kind == "io" else in_order([name for name in asked if name in sent], resources)
    each = names_per_request(on_loop)
    return Plan(
        route,
        mount.path_of(route),
        mount,
        binder,
        own if route.kind == "cpu" else {},
        {name: resource for name, resource in on_loop.items() if name not in each},
        {name: resource for name, resource in on_loop.items() if name in each},
    )


def takes_type(kind: type, plan: Plan) -> bool:
    """Whether the handler, or a resource of its requests, has a parameter of this type."""
    functions = [plan.route.function, *(each.function for each in plan.request_resources.values())]
    return any(has_parameter(function, kind) for function in functions if not isinstance(function, Given))


def has_parameter(function: Callable[..., Any], kind: type) -> bool:
    return any(kind in (each.annotation, *get_args(each.annotation)) for each in signature_of(function).values())


def credentials_of(plan: Plan) -> list[str]:
    """The headers with the credentials that the handler, or a resource of its requests, takes."""
    inputs = [each for each in plan.inputs if each.place in ("header", "cookie")]
    names = ["cookie" if each.place == "cookie" else each.field.lower() for each in inputs if _is_credential(each)]
    return list(dict.fromkeys(names))


def _is_credential(taken: Input) -> bool:
    return isinstance(taken.marker, (Bearer, ApiKey)) or taken.field.lower() == "authorization"


def _check_can_finish(route: Route) -> None:
    """A stream cannot finish without its client: a disconnect closes it at its next chunk."""
    function = route.function
    makes_stream = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if route.on_disconnect == "finish" and (makes_stream or is_stream(hints_of(function).get("return"))):
        raise ConfigurationError.at(
            function,
            'has on_disconnect="finish", but it streams, and a stream is closed when its client disconnects; leave out '
            "on_disconnect, and run the work that must finish in a background task: background: Background",
        )


def _check_item_stream(route: Route, binder: Binder) -> None:
    """A stream of requests arrives on the event loop."""
    function = route.function
    if binder.body_kind == "stream" and not (
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    ):
        name = next(each.parameter for each in binder.inputs if each.place == "stream")
        raise ConfigurationError.at(
            function,
            f"its parameter {name} is a stream of requests, which only an @io_route with `async def` can read; make it "
            f"one, and await call(...) in it for each item, or take all items at once: {name}: list[...]",
        )


def _check_no_resource_left_out(mount: Mount, route: Route, names: list[str]) -> None:
    """Refuse a parameter that the client would fill by mistake: a resource of the module that the service lacks."""
    function = route.function
    for name in names:
        if name in mount.service.resources:
            continue
        for each in recorded(function.__globals__.get(name)):
            if isinstance(each, Resource):
                remedy = f"name it too, as in Service({function.__name__}, {name}), or rename one of the two"
                if each.name != name:
                    remedy = f"rename the parameter to {each.name}, the name of the resource"
                raise ConfigurationError.at(
                    function,
                    f"its parameter {name} is a resource of its module, but not of this service, so the client would "
                    f"fill it; {remedy}",
                )


def _wrong_kind(mount: Mount, route: Route, name: str) -> ConfigurationError:
    kind = mount.service.resources[name].kind
    where = "on the event loop" if route.kind == "io" else "in a worker process"
    return ConfigurationError.at(
        route.function,
        f"{name} comes from @{kind}_resource, but this handler runs {where}; use @{route.kind}_resource for it, "
        "or rename the parameter if the client fills it",
    )


def has_body(methods: Iterable[str]) -> bool:
    """Whether a request with one of these methods may have a body with a meaning (RFC 9110, 9.3.1)."""
    return any(method not in ("GET", "HEAD") for method in methods)
