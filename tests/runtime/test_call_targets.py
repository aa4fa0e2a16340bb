"""call_targets.py: an address wins over a mount, and a handler with neither is refused with the remedy."""

from __future__ import annotations

from typing import Any

import pytest

import called_app as app
from http_ends import on_loop
from tinysvc import ConfigurationError, Service, call, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.call_targets import callee_of, unknown_callee
from tinysvc.runtime.direct_calls import DirectIo
from tinysvc.runtime.exchanges import ExchangeTarget
from tinysvc.runtime.running_service import at_work
from tinysvc.service.routes import route_of

IO_ONLY = (app.moved, app.factor, app.slow_request, app.events, app.response, app.chain)


@io_route("/two", methods=["GET", "POST"])
async def two() -> None: ...


@io_route("/elsewhere")
async def elsewhere() -> None: ...


@on_loop
async def test_simple_handler_is_called_directly_and_others_by_a_request() -> None:
    async with at_work(Service(*IO_ONLY), Settings()):
        assert isinstance(callee_of(app.moved).target, DirectIo)
        assert callee_of(app.moved) is callee_of(app.moved)
        for function in (app.slow_request, app.events, app.response):
            callee = callee_of(function)
            assert isinstance(callee.target, ExchangeTarget)
            assert not callee.is_remote
    async with at_work(Service(app.moved, app.factor), Settings(max_io_requests=5)):
        assert isinstance(callee_of(app.moved).target, ExchangeTarget)


@on_loop
async def test_address_wins_over_a_mount() -> None:
    async with at_work(Service(*IO_ONLY), Settings(services="called_app=http://127.0.0.1:1")):
        assert callee_of(app.moved).is_remote
        async with at_work(Service(app.moved, app.factor), Settings()):  # the inner service knows it first
            assert not callee_of(app.moved).is_remote


def plain() -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (elsewhere, r'elsewhere .*TINYSVC_SERVICES="test_call_targets=http://host:8000"'),
        (plain, r"plain .*has no route; decorate plain with @io_route or @cpu_route"),
        (app, r"called_app.*has no route"),
    ],
)
def test_handler_with_neither_is_refused_with_the_remedy(function: Any, says: str) -> None:
    assert route_of(plain) is None

    @on_loop
    async def refused() -> None:
        async with at_work(Service(two), Settings()):
            with pytest.raises(ConfigurationError, match=says):
                await call(function)
        with pytest.raises(ConfigurationError, match=says):
            await call(function)

    refused()
    assert isinstance(unknown_callee(function), ConfigurationError)


def test_services_at_addresses_are_named_beside_a_misspelt_one() -> None:
    assert "has no address of test_call_targets, only of a, ofice;" in str(
        unknown_callee(elsewhere, ["ofice", "a", "a"])
    )


def test_call_without_an_event_loop_names_call_wait() -> None:
    with pytest.raises(ConfigurationError, match=r"where no event loop runs; in a cpu handler.* write `call.wait"):
        call(elsewhere).close()
