"""The services that the running service calls: the setting `services`, read at start-up, and their connections."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..core.settings import Settings
from ..service.service import Service

if TYPE_CHECKING:
    from ..client.services import Services

_open: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Services]] = WeakKeyDictionary()


def services_here() -> Services | None:
    """The services that the service on this event loop calls; None outside of a service, or if it names none."""
    found = _open.get(asyncio.get_running_loop())
    return found[-1] if found else None


def open_services(stack: AsyncExitStack, settings: Settings) -> Services | None:
    """Read the setting `services`; the connections close with `stack`. None if it is empty.

    Raises:
        ConfigurationError: An address or a certificate is wrong.
    """
    if not settings.services:
        return None
    from ..client.address import parse_services  # imported only where a service calls others
    from ..client.client_tls import client_context
    from ..client.services import Services

    tls = None
    if settings.services_ca or settings.services_cert:
        tls = client_context(settings.services_ca, settings.services_cert, settings.services_key)
    services = Services(parse_services(settings.services), settings, tls=tls)
    here = _open.setdefault(asyncio.get_running_loop(), [])
    here.append(services)
    stack.push_async_callback(services.aclose)
    stack.callback(here.remove, services)
    return services


def service_name(function: Callable[..., Any], named: Iterable[str] = ()) -> str:
    """The name of the service that a handler belongs to.

    It is the first of these that is among `named`, else the last part of the module's name:

        the module's whole name         shop.pricing
        the last part of it             pricing
        the name of a Service there     Service(..., name="prices"), at the top level of the handler's module
    """
    module = function.__module__
    short = module.rpartition(".")[2]
    for name in (module, short):
        if name in named:
            return name
    for value in list(vars(sys.modules.get(module, object)).values()):
        if isinstance(value, Service) and value.name in named and _serves(value, function):
            return value.name
    return short


def _serves(service: Service, function: Callable[..., Any]) -> bool:
    return any(route.function is function for _, route in service.all_routes())
