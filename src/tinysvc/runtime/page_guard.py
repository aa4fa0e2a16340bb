"""A guard of pages that the server itself serves: an io resource that opens for each of their requests, or refuses.

    @io_resource
    def operator(token: Annotated[str, Bearer()]) -> str:
        if not hmac.compare_digest(token, TOKEN):
            raise HTTPError(403, "Operators only.")
        return "operator"

The resource is closed before the page responds: a stream that lasts for hours does not hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from typing import Any

from ..core.errors import ConfigurationError
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..service.plan import Plan, plan_in
from ..service.routes import Route
from ..service.service import Service
from .open_resources import Scope


def guard_plan(service: Service, name: str, setting: str) -> Plan:
    """The plan of a route that takes the resource `name`, and does nothing.

    Args:
        service: The service, which has the resource, or a service inside it.
        name: The name of the resource.
        setting: The setting that names it, for the error.

    Raises:
        ConfigurationError: There is no such io resource, or it takes nothing of the request and can refuse nothing.
    """
    mount = next((each for each in service.mounts() if name in each.service.resources), None)
    if mount is None or mount.service.resources[name].kind != "io":
        raise ConfigurationError(f"{setting} names {name!r}, but the service has no @io_resource of this name")

    async def opened(**resources: Any) -> None:
        """The resource is open: the request may go on."""

    opened.__signature__ = Signature([Parameter(name, Parameter.KEYWORD_ONLY)])  # type: ignore[attr-defined]
    plan = plan_in(mount, Route(path="/dashboard", methods=("GET",), function=opened, kind="io"))
    if name not in plan.request_resources:
        raise ConfigurationError.at(
            mount.service.resources[name].function,
            f"is named by {setting}, but it takes nothing of a request, so it cannot refuse one; take the Request, or "
            "a parameter with Bearer(), ApiKey(), Header() or Cookie()",
        )
    return plan


class PageGuard:
    """Puts the guard in front of a handler: `guard(handler)`.

    Args:
        plan: See `guard_plan`.
        once: Values of the resources that are open for the whole server.
    """

    def __init__(self, plan: Plan, once: Mapping[str, Any]) -> None:
        scope = Scope(plan.request_resources, plan.binder, once, sent=False)
        self._check = scope.around(_allowed)

    def __call__(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            await self._check(request)
            return await handler(request)

        return guarded


async def _allowed(request: Request) -> Response:
    return Response(b"", 204)
