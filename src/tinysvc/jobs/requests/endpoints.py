"""The handlers that a server has for each job route: one for each verb, with the resources of the request around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...binding.binder import Binder
from ...binding.results import begin_result, encode_result
from ...core.requests import Request
from ...core.responses import Handler, Response
from ...core.settings import Settings
from ...runtime.limits import within_time
from ...runtime.open_resources import Scope
from ...service.job_verbs import VERBS
from ...service.plan import Plan
from ..store import Store
from .intake import Intake
from .job_handlers import Cancel, JobHandlers, LaterStream
from .watchers import Watchers


class JobEndpoints:
    """The handlers of all job routes of a server.

    Args:
        store: Where the durable jobs are kept.
        settings: The server's settings.
        cancel: Cancels a durable job, and returns when its worker is dead.
    """

    def __init__(self, store: Store, settings: Settings, cancel: Cancel) -> None:
        self._store = store
        self._settings = settings
        self._cancel = cancel
        self._watchers = Watchers(store)

    def pause(self) -> None:
        """The server drains: requests that wait for the end of a durable job get their response now."""
        self._watchers.pause()

    def _handlers(self, plan: Plan) -> JobHandlers:
        return JobHandlers(plan, Intake(plan, self._settings), self._store, self._watchers, self._cancel)

    def post(self, plan: Plan) -> Handler:
        """The handler that submits a durable job of a route; all options of the route are still to come."""
        return self._timed(self._handlers(plan).submit)

    def verbs(self, plan: Plan, once: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], Handler]]:
        """Path, methods and handler of each other verb; the options of `RouteHandlers.outermost` are still to come.

        The resources of the request are around each of them, so a check of the client holds for all verbs. The verbs
        take no value of a resource.

        Args:
            plan: The job route.
            once: Values of the resources that are open for the whole server.
        """
        verbs = self._handlers(plan)
        of_name: dict[str, Handler] = {
            "list": verbs.page,
            "status": verbs.status,
            "result": verbs.result,
            "cancel": verbs.cancel,
            "retry": verbs.retry,
        }
        found: list[tuple[str, tuple[str, ...], Handler]] = []
        for verb in VERBS:
            if verb.name != "submit":
                handler = self._timed(of_name[verb.name])
                if plan.request_resources:
                    nothing = Binder(_without_parameters)
                    scope = Scope(plan.request_resources, nothing, once, sent=False, apart=bool(plan.middleware))
                    handler = scope.around(handler)
                found.append((verb.path(plan.path), (verb.method,), _begun(handler)))
        return found

    def _timed(self, handler: Handler) -> Handler:
        """`handler`, compressed if the server compresses, and cancelled when the client gives up."""
        if self._settings.compress:
            from ...web.compression import compressed  # imported only where it is used

            handler = compressed(handler)

        async def handle(request: Request) -> Response:
            if request.time_limit is not None and not request.is_timed:
                return await within_time(handler, request)
            return await handler(request)

        return handle


def _without_parameters() -> None:
    """The function of the verbs that bind nothing."""


def _begun(handler: Handler) -> Handler:
    """`handler`, whose stream begins when the resources of the request are closed."""

    async def handle(request: Request) -> Response:
        response = await handler(request)
        return (
            await begin_result(encode_result(response.begin()), "") if isinstance(response, LaterStream) else response
        )

    return handle
