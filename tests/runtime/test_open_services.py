"""open_services.py: the setting `services`, and the names of services."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import called_app
from http_ends import on_loop
from tinysvc import ConfigurationError, Service, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.open_services import open_services, service_name, services_here


@io_route("/here")
async def here() -> None: ...


named = Service(here, name="prices")


def test_name_of_a_service_is_that_of_the_module_or_of_a_service_in_it() -> None:
    assert service_name(called_app.moved) == "called_app"
    assert service_name(here, ["prices", "shop"]) == "prices"
    assert service_name(here, ["test_open_services", "prices"]) == "test_open_services"
    here.__module__ = "shop.pricing"
    try:
        assert service_name(here, ["shop.pricing", "pricing"]) == "shop.pricing"
        assert service_name(here, ["pricing"]) == "pricing"
        assert service_name(here, ["shop"]) == "pricing"
    finally:
        here.__module__ = __name__


@on_loop
async def test_services_are_open_as_long_as_the_stack() -> None:
    async with AsyncExitStack() as stack:
        assert open_services(stack, Settings()) is None
        assert services_here() is None
        opened = open_services(stack, Settings(services="a=http://h:1,http://h:2 b=unix:/s"))
        assert services_here() is opened
        assert opened is not None
        assert {name: len(found) for name, found in opened.addresses.items()} == {"a": 2, "b": 1}
    assert services_here() is None


@on_loop
async def test_wrong_setting_ends_the_start(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigurationError, match="services takes names with their addresses"):
            open_services(stack, Settings(services="http://h:1"))
        with pytest.raises(ConfigurationError, match="services_ca"):
            open_services(stack, Settings(services="a=https://h", services_ca=str(tmp_path / "none.pem")))
