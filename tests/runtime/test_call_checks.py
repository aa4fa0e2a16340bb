"""call_checks.py: a call to a handler that is nowhere ends the start, with the place of the call and the remedy."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

import called_app
import calling_app as app
import submitting_app
from http_ends import on_loop
from tinysvc import ConfigurationError, Service, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.call_checks import called_handlers
from tinysvc.runtime.running_service import at_work
from tinysvc.service.plan import plans_of

ALL_BUT_UNSERVED = (app.opened, app.plain, app.streams, app.waits, app.forwards, app.dotted, app.hidden)


def names(*parts: Any) -> set[str]:
    return {function.__name__ for function, _, _ in called_handlers(plans_of(Service(*parts)))}


def test_calls_are_found_in_handlers_resources_and_functions_of_the_module() -> None:
    found = names(*ALL_BUT_UNSERVED)
    assert found == {"chain", "moved", "counted", "text", "now", "row"}
    assert names(app.opened, app.plain, app.unserved) == {"chain", "moved", "limited"}
    assert names(app.dotted) == {"row"}


def test_function_that_no_served_handler_uses_is_not_looked_at() -> None:
    assert names(app.hidden) == set()


def test_module_without_calls_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("module_without_calls")

    async def handler() -> None: ...

    handler.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert names(io_route("/a")(handler)) == set()
    module.call = app.call  # type: ignore[attr-defined]
    assert names(handler) == set()  # it has no source


@on_loop
async def test_called_handler_that_is_nowhere_ends_the_start() -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with at_work(Service(app.dotted), Settings()):
            pass
    text = str(caught.value)
    assert text.startswith("row (")
    assert f"cannot be called in {app.__file__}:" in text
    assert 'TINYSVC_SERVICES="called_app=http://host:8000"' in text


@on_loop
async def test_called_handler_that_is_mounted_or_named_is_accepted() -> None:
    async with at_work(Service(app.dotted, called_app.row), Settings()):
        pass
    async with at_work(Service(app.dotted), Settings(services="called_app=http://127.0.0.1:1")):
        pass
    async with at_work(Service(called_app.row), Settings()), at_work(Service(app.dotted), Settings()):
        pass


class Own: ...


@on_loop
async def test_type_that_cannot_travel_ends_the_start() -> None:
    async def handler() -> Own:
        return Own()

    handler.__module__ = called_app.__name__
    handler.__annotations__["return"] = Own
    called_app.own = io_route("/own")(handler)  # type: ignore[attr-defined]
    original = called_app.row
    called_app.row = called_app.own  # type: ignore[attr-defined]
    try:
        async with at_work(Service(app.dotted, handler), Settings()):
            pass  # here, nothing has to travel
        with pytest.raises(ConfigurationError, match=r"its result, .*Own.* cannot be read from a response"):
            async with at_work(Service(app.dotted), Settings(services="called_app=http://127.0.0.1:1")):
                pass
    finally:
        called_app.row = original
        del called_app.own  # type: ignore[attr-defined]


@on_loop
async def test_parameter_that_cannot_travel_ends_the_start_with_its_name() -> None:
    async def row(odd: Own) -> None: ...

    row.__module__ = called_app.__name__
    row.__annotations__["odd"] = Own
    original = called_app.row
    called_app.row = io_route("/odd")(row)  # type: ignore[assignment]
    try:
        with pytest.raises(ConfigurationError, match=r"row .*cannot read a value of type .*Own.* for query\.odd"):
            async with at_work(Service(app.dotted), Settings(services="called_app=http://127.0.0.1:1")):
                pass
    finally:
        called_app.row = original


def test_submissions_are_found_as_calls_are() -> None:
    assert names(submitting_app.submits, submitting_app.forwards) == {"raw", "guarded"}


@on_loop
async def test_submitted_handler_that_is_no_job_route_ends_the_start() -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with at_work(Service(submitting_app.wrong, called_app.row), Settings()):
            pass
    text = str(caught.value)
    assert text.startswith("row (")
    assert f"cannot be submitted in {submitting_app.__file__}:" in text
    assert "it has no @job_route; give it one, or call it by `await call(...)`" in text


@on_loop
async def test_submitted_handler_that_is_nowhere_ends_the_start() -> None:
    with pytest.raises(ConfigurationError, match='TINYSVC_SERVICES="submitted_app='):
        async with at_work(Service(submitting_app.submits), Settings()):
            pass
