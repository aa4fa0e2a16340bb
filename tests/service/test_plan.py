"""wiring.py: what a route needs, found before anything runs. What is refused stands in test_service.py."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest

import resources_jobs
from tinysvc import ConfigurationError, Service, cpu_route, io_route
from tinysvc.service.plan import Wiring, wiring_of


def wirings() -> dict[str, Wiring]:
    found = map(wiring_of, Service(resources_jobs).mounted())
    return {each.mounted.route.function.__name__: each for each in found}


def test_resources_in_the_order_of_need() -> None:
    twice, work = wirings()["twice"], wirings()["work"]
    assert (list(twice.once), list(twice.of_request)) == (["database", "config"][::-1], ["user", "transaction"])
    assert (list(work.worker), list(work.once), list(work.of_request)) == (
        ["base", "scale", "weights"],
        ["config", "database"],
        ["user"],
    )
    assert work.binder.resources == ["weights", "user"]


def test_a_route_without_resources_has_none() -> None:
    assert not any(wirings()["raises"][2:])


def _yields() -> Any:
    yield


async def _yields_async() -> Any:
    yield


def _returns_an_iterator() -> Iterator[str]:
    return iter("ab")


@pytest.mark.parametrize("function", [_yields, _yields_async, _returns_an_iterator])
@pytest.mark.parametrize("route", [io_route, cpu_route])
def test_a_stream_cannot_finish_without_its_client(function: Any, route: Any) -> None:
    handler = FunctionType(function.__code__, globals(), function.__name__)
    handler.__annotations__ = function.__annotations__
    route("/", on_disconnect="finish")(handler)
    with pytest.raises(ConfigurationError, match='on_disconnect="finish", but it streams'):
        wiring_of(next(Service(handler).mounted()))
