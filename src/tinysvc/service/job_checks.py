"""Checks of a job route at its place: a schedule starts its job without a client."""

from __future__ import annotations

import inspect

from ..binding.annotations import hints_of, without_annotated
from ..binding.inputs import Input
from ..binding.markers import ApiKey, Bearer
from ..binding.results import is_stream
from ..core.errors import ConfigurationError
from ..core.sse import EventStream
from .plan import Plan


def check_job_route(plan: Plan) -> None:
    """ConfigurationError for a job route that cannot work as it is declared."""
    durable, function = plan.route.durable, plan.route.function
    if durable is None:
        return
    returned = hints_of(function).get("return")
    if is_stream(returned) or without_annotated(returned) is EventStream:
        raise ConfigurationError.at(
            function,
            "returns a stream, but a durable job has one result, which is stored; return that, and report on the way "
            "with job.progress(...)",
        )
    _check_guards_all_requests(plan)
    if durable.every:
        _check_needs_no_client(plan, f"every={durable.every!r} starts it without a request")


def _check_guards_all_requests(plan: Plan) -> None:
    """Refuse a credential that only a submission would ask for: the other requests about a job would be open."""
    if any(map(_is_credential, plan.guard_inputs)):
        return
    for each in filter(_is_credential, plan.binder.inputs):
        raise ConfigurationError.at(
            plan.route.function,
            f"takes the credential {each.parameter} itself, so only a POST would ask for it, and any client could "
            "list, read and cancel its jobs; check it in an @io_resource with this parameter, and take the resource: "
            "that guards all requests",
        )


def _is_credential(each: Input) -> bool:
    return isinstance(each.marker, (Bearer, ApiKey))


def _check_needs_no_client(plan: Plan, schedule: str) -> None:
    function = plan.route.function
    for name in plan.route.parameters:
        raise ConfigurationError.at(
            function, f"{schedule}, but its path has the parameter {{{name}}}; leave it out of the path"
        )
    for name in plan.request_resources:
        raise ConfigurationError.at(
            function,
            f"{schedule}, but its resource {name} is made from a request; guard the route with middleware, or give "
            "the schedule a job route of its own without it",
        )
    for each in plan.binder.inputs:
        if each.travels and each.default is inspect.Parameter.empty:
            raise ConfigurationError.at(
                function, f"{schedule}, but its parameter {each.parameter} has no default; give it one"
            )
