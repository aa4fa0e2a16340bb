"""plan.py: the resources of each route, found before the server starts. Refusals are in test_service.py."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

import resources_jobs
from tinysvc import ConfigurationError, Service, cpu_route, io_route
from tinysvc.service.plan import Plan, plans_of


def plans() -> dict[str, Plan]:
    return {plan.route.function.__name__: plan for plan in plans_of(Service(resources_jobs))}


def test_resources_are_in_the_order_of_need() -> None:
    twice, work = plans()["twice"], plans()["work"]
    assert list(twice.server_resources) == ["config", "database"]
    assert list(twice.request_resources) == ["user", "transaction"]
    assert list(work.cpu_resources) == ["base", "scale", "weights"]
    assert list(work.server_resources) == ["config", "database"]
    assert list(work.request_resources) == ["user"]
    assert work.binder.resources == ["weights", "user"]


def test_route_without_resources_has_none() -> None:
    plan = plans()["raises"]
    assert not plan.cpu_resources | plan.server_resources | plan.request_resources


def _yields() -> Any:
    yield


async def _yields_async() -> Any:
    yield


def _returns_an_iterator() -> Iterator[str]:
    return iter("ab")


@pytest.mark.parametrize("function", [_yields, _yields_async, _returns_an_iterator])
@pytest.mark.parametrize("route", [io_route, cpu_route])
def test_stream_cannot_finish_without_its_client(function: Any, route: Any) -> None:
    handler = FunctionType(function.__code__, globals(), function.__name__)
    handler.__annotations__ = function.__annotations__
    route("/", on_disconnect="finish")(handler)
    with pytest.raises(ConfigurationError, match='on_disconnect="finish", but it streams'):
        next(plans_of(Service(handler)))
