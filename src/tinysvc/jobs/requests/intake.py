"""From the request of a client to the durable job that is stored.

The request is bound here, so that a wrong one gets its 422 now; the arguments are then discarded. Each attempt binds
the stored request again, in its worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from time import time
from typing import Any

from ...binding.compressed_bodies import typed_body
from ...binding.inputs import Input
from ...binding.outgoing_texts import filled_path
from ...core.errors import ConfigurationError
from ...core.requests import Request
from ...core.settings import Settings
from ...core.threads import in_thread
from ...core.units import KiB
from ...runtime.job_headers import after_of, key_of, priority_of, scoped_key, sent_values
from ...service.plan import Plan
from ..records import NewJob
from ..stored_request import NEVER_KEPT, RequestStorage, digest_of

BIG = 64 * KiB
"""Bytes of a body that is bound and hashed in a thread: on the event loop it would take about a millisecond."""


class Intake:
    """Makes the durable jobs of one route.

    Args:
        plan: The route.
        settings: The server's settings.
    """

    def __init__(self, plan: Plan, settings: Settings) -> None:
        if plan.route.durable is None:
            raise ConfigurationError.at(plan.route.function, "has no @job_route")
        self._plan = plan
        self._options = plan.route.durable
        self._binder = plan.binder
        self._values: dict[str, Any] = dict.fromkeys(plan.binder.resources)
        self._max_size = plan.max_body_size(settings)
        self._storage = RequestStorage(plan.binder)
        self._keeps_body = bool(plan.binder.body_kind) or plan.binder.takes_request
        own, guards = _places(plan.binder.inputs), _places(plan.guard_inputs)
        self._credentials = list(dict.fromkeys([("header", "authorization"), *guards]))
        self._chosen_by = [each for each in own if each not in self._credentials and each[1] not in NEVER_KEPT]

    async def new_job(self, request: Request) -> NewJob:
        """The durable job of a request.

        Raises:
            BindingError: 422, the request does not fit the parameters of the handler.
            HTTPError: Another status, for a body or a header that cannot be read.
        """
        key, after, priority = key_of(request), after_of(request), priority_of(request)
        body = await request.body()
        if len(body) < BIG:
            digest = self._checked(request, body)
        else:
            digest = await in_thread(partial(self._checked, request, body))
        path = filled_path(self._plan.path, request.path_params or {})
        return NewJob(
            route=self._plan.path,
            path=path,
            request=self._storage.encoded(request),
            body=body if self._keeps_body else b"",
            digest=digest,
            due=time() + after if after else None,
            priority=priority,
            key=scoped_key(
                key, path if path != self._plan.path else "", sent_values(request, self._credentials) if key else []
            ),
            keep=self._options.keep,
            max_attempts=self._options.retry.attempts,
            max_waiting=self._options.max_waiting,
            request_id=request.id,
        )

    def _checked(self, request: Request, body: bytes) -> bytes:
        """Bind the request, and hash it."""
        self._binder.bind(request, typed_body(request, body, self._binder.body_kind, self._max_size), self._values)
        return digest_of(request, body, sent_values(request, self._chosen_by))

    def scheduled_job(self, request_id: str) -> NewJob:
        """The durable job of one tick of the route's schedule: that of an empty request.

        Args:
            request_id: Id of the request, which no client has sent.
        """
        request = Request("POST", self._plan.path, id=request_id)
        self._checked(request, b"")
        return NewJob(
            route=self._plan.path,
            path=self._plan.path,
            request=self._storage.encoded(request),
            keep=self._options.keep,
            max_attempts=self._options.retry.attempts,
            max_waiting=self._options.max_waiting,
            request_id=request_id,
        )


def _places(inputs: Iterable[Input]) -> list[tuple[str, str]]:
    """The headers and cookies of these inputs."""
    sent = [each for each in inputs if each.travels and each.place in ("header", "cookie")]
    return [(each.place, each.field.lower() if each.place == "header" else each.field) for each in sent]
