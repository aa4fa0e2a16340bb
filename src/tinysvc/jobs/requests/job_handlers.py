"""The handlers of a job route below its options: one for each verb of service/job_verbs.py.

    submit     bind (422), store with fsync, 202; with `Prefer: wait` the result, if it comes in time
    list       a page of the route's durable jobs
    status     the document of one; as `text/event-stream`, each change of it
    result     the stored response, or why there is none
    cancel     200 after the death of its worker; a failed one is dismissed
    retry      202 for a failed one

Each of them sees the durable jobs of its own path only: /users/7/trainings does not show those of user 8.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import time
from typing import Any
from urllib.parse import urlencode

from ...binding.outgoing_texts import filled_path
from ...core.encoding import json_bytes
from ...core.errors import BindingError
from ...core.job_errors import KeyReused
from ...core.requests import Request
from ...core.responses import JSON, PROBLEM, FileContent, Response, add_vary
from ...core.sse import Event, EventStream
from ...runtime.job_headers import shown_key
from ...service.job_verbs import JOB_ID
from ...service.plan import Plan
from ...web.conditional import precondition, validators
from ...web.negotiation import accepted, link
from ..records import ENDED, CancelOutcome, Record, State
from ..states import Refusal
from ..store import Store
from .documents import document_of, encoded, etag_of, page_of, url_of
from .intake import Intake
from .list_queries import list_query
from .preferences import Wait
from .refusals import NO_CACHE, cannot_cancel, cannot_retry, expired_job, no_result, unknown_job
from .watchers import Watchers

EVENTS = "text/event-stream"

_ID = re.compile(r"[0-9a-f]{32}")

Cancel = Callable[[str], Awaitable[CancelOutcome]]
"""Cancels a durable job, and returns when its worker is dead."""


class LaterStream(Response):
    """A stream whose content is made when the resources of the request are closed: they must not stay open with it."""

    __slots__ = ("begin",)

    begin: Callable[[], Response]


class JobHandlers:
    """The handlers of one job route.

    Args:
        plan: The route.
        intake: Makes durable jobs of its requests.
        store: Where they are kept.
        watchers: Waits for their changes.
        cancel: Cancels one.
    """

    def __init__(self, plan: Plan, intake: Intake, store: Store, watchers: Watchers, cancel: Cancel) -> None:
        self._route = plan.path
        self._intake = intake
        self._store = store
        self._watchers = watchers
        self._cancel = cancel

    async def submit(self, request: Request) -> Response:
        wait = Wait(request)
        new = await self._intake.new_job(request)
        try:
            record = (await self._store.submit(new)).record
        except KeyReused:
            raise KeyReused(shown_key(new.key)) from None
        if wait.seconds:
            record = await self._watchers.until_ended(record, wait.seconds, request)
        location = ("location", url_of(record, request.peer.root_path))
        if wait.preferred and record.state in (State.SUCCEEDED, State.FAILED):
            response = await self._result_of(record, request)
            response.headers.append(("content-location", f"{location[1]}/result"))
        else:
            response = self._document(request, record, 202, [("retry-after", str(_retry_after(record)))])
        if not any(name.lower() == "location" for name, _ in response.headers):  # the handler may have set its own
            response.headers.append(location)
        response.headers += wait.headers()
        return response

    async def page(self, request: Request) -> Response:
        state, limit, cursor = list_query(request)
        path = self._path_of(request)
        try:
            page = await self._store.page(self._route, state, limit, cursor, path)
        except ValueError:
            raise BindingError([("query.cursor", "it is none that a page of this list has given")]) from None
        following = None
        if page.next:
            query = {"state": state, "limit": str(limit), "cursor": page.next}
            following = f"{request.peer.root_path}{path}?{urlencode({k: v for k, v in query.items() if v})}"
        response = Response(encoded(page_of(page, request.peer.root_path, following)), content_type=JSON)
        if following:
            response.headers.append(link(following, "next"))
        response.headers.append(("cache-control", "no-cache"))
        return response

    async def status(self, request: Request) -> Response:
        record = await self._record(request)
        if accepted(request, [JSON, EVENTS]) == EVENTS:
            return self._events(request, record)
        tag = etag_of(record)
        response = precondition(request, etag=tag) or self._document(request, record, 200, validators(etag=tag))
        add_vary(response, "accept")
        return response

    async def result(self, request: Request) -> Response:
        record, wait = await self._record(request), Wait(request)
        if wait.seconds:
            record = await self._watchers.until_ended(record, wait.seconds, request)
        response = await self._result_of(record, request)
        response.headers += wait.headers()
        return response

    async def cancel(self, request: Request) -> Response:
        record = await self._record(request)
        outcome = await self._cancel(record.id)
        if outcome.record is None:
            raise unknown_job(record.id)
        if outcome.kind not in ("cancelled", "was-cancelled"):
            raise cannot_cancel(outcome.record)
        return self._document(request, outcome.record)

    async def retry(self, request: Request) -> Response:
        record = await self._record(request)
        again = await self._store.retry(record.id)
        if again is None:
            raise unknown_job(record.id)
        if isinstance(again, Refusal):
            raise cannot_retry(record)
        lines = [("location", url_of(again, request.peer.root_path)), ("retry-after", str(_retry_after(again)))]
        return self._document(request, again, 202, lines)

    # Steps

    def _path_of(self, request: Request) -> str:
        return filled_path(self._route, request.path_params or {})

    async def _record(self, request: Request) -> Record:
        """The record of the durable job that the path names."""
        job_id = (request.path_params or {})[JOB_ID]
        record = await self._store.get(job_id) if _ID.fullmatch(job_id) else None
        if record is None or record.route != self._route or record.path != self._path_of(request):
            raise unknown_job(job_id)
        if record.expired or (record.expires is not None and record.expires <= time()):
            raise expired_job(record)
        return record

    def _document(
        self, request: Request, record: Record, status: int = 200, lines: list[tuple[str, str]] | None = None
    ) -> Response:
        content = encoded(document_of(record, request.peer.root_path))
        response = Response(content, status, lines or (), content_type=JSON)
        response.headers.append(("cache-control", "no-cache"))
        return response

    async def _result_of(self, record: Record, request: Request) -> Response:
        """The response that is stored with a durable job. Raises why there is none."""
        if record.state == State.FAILED:
            problem: dict[str, Any] = record.problem or {"type": "about:blank", "title": "Failed", "status": 500}
            status = problem.get("status")
            status = status if isinstance(status, int) and 400 <= status <= 599 else 500
            return Response(json_bytes({**problem, "job": record.id}), status, [NO_CACHE], content_type=PROBLEM)
        if record.state != State.SUCCEEDED or record.result is None:
            raise no_result(record, _retry_after(record))
        content = await self._store.result(record.id)
        if content is None:  # it was removed between the two reads
            raise expired_job(record)
        head = record.result
        whole = content if isinstance(content, bytes) else FileContent(content, 0, head.size)
        response = Response(whole, head.status, content_type=head.content_type)
        response.headers += head.headers
        return response

    def _events(self, request: Request, record: Record) -> Response:
        """The document now, and after each change. 204, which ends an EventSource, if the client has the last one."""
        last = request.headers.get("last-event-id", "")
        version = int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else 0
        if record.state in ENDED and record.version <= version:
            return Response(b"", 204)
        root_path = request.peer.root_path
        if record.version < version:  # ids of another store
            version = 0

        async def events() -> AsyncGenerator[Event, None]:
            async for newer in self._watchers.changes(record.id, version):
                yield Event(encoded(document_of(newer, root_path)).decode(), id=str(newer.version))

        response = LaterStream(b"")
        response.begin = lambda: EventStream(events(), [("cache-control", "no-cache")])
        return response


def _retry_after(record: Record) -> int:
    """Seconds after which a further request about the durable job makes sense."""
    return max(1, min(3600, round(record.due - time()))) if record.state == State.SCHEDULED else 1
