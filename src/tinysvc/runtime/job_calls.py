"""Calls of job routes: a submission, then requests for its result; here as over the network.

    submit   POST                        202, Location                                   SubmittedJob
    call     POST, then GET .../result   with `Prefer: wait` until it has ended          the result
             and DELETE                  where the caller gives up: no other code knows the id

A submission over the network has an Idempotency-Key, so that it can be sent again. Requests for the result are repeated
while the callee restarts: the durable job continues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from math import ceil
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from ..binding.outgoing import OutgoingRequest
from ..core.call_errors import BudgetExhausted, CallFailed, CallTimeout
from ..core.errors import ConfigurationError
from ..core.form_data import is_json_type
from ..service.job_document import JobDocument
from .call_context import CallContext
from .call_failures import MAX_PROBLEM, check_response
from .exchanges import Exchange, ExchangeTarget, is_remote
from .job_headers import KEY, job_headers
from .message_calls import Reader, Writer

if TYPE_CHECKING:
    from ..service.routes import Route

log = logging.getLogger("tinysvc.calls")

WAIT = 30.0
"""Seconds that one request waits for a result: shorter than the idle timeouts of load balancers (60 s)."""

LATEST = 0.1
"""Seconds before the deadline at which no further request for a result is sent."""

PAUSE = 0.5
"""Seconds between two requests of which the first one did not wait, or failed."""

OUTAGE = 60.0
"""Seconds in which no request succeeds, until the callee counts as lost. A restart takes less."""

CANCEL_TIME = 10.0
"""Seconds for the cancel of a durable job whose caller has given up."""

MAX_DOCUMENT = 1024 * 1024
"""Bytes of the document of a durable job."""

NOT_FINISHED = "urn:tinysvc:not-finished"

_OF_SUBMISSION = frozenset(
    {"content-type", "content-encoding", "idempotency-key", "job-after", "job-priority", "prefer"}
)
_cancelling: set[asyncio.Task[None]] = set()


class SubmittedJob:
    """A durable job that was accepted.

    Args:
        exchange: Sends requests to its service.
        service: Name of the service, for errors.
        sent: The request that submitted it.
        location: `Location` of the response.
    """

    def __init__(self, exchange: Exchange, service: str, sent: OutgoingRequest, location: str) -> None:
        self.id = location.rpartition("/")[2]
        self.url = location
        self._exchange = exchange
        self._service = service
        self._path = f"{sent.target.partition('?')[0].rstrip('/')}/{self.id}"
        self._headers = [line for line in sent.headers if line[0] not in _OF_SUBMISSION]

    async def request(
        self, method: str, context: CallContext, suffix: str = "", lines: list[tuple[str, str]] | None = None
    ) -> Any:
        """The response to a request about it."""
        headers = [*self._headers, *(lines or ())]
        return await self._exchange(OutgoingRequest(method, self._path + suffix, headers, b""), context)

    async def document(self, method: str, context: CallContext) -> JobDocument:
        """The document that a request responds with. Raises the exception of an error response."""
        incoming = await self.request(method, context)
        try:
            await check_response(incoming, self._service)
            return msgspec.json.decode(await incoming.body(MAX_DOCUMENT), type=JobDocument)
        except msgspec.DecodeError as error:
            raise CallFailed(f"The document of the job cannot be read: {error}", service=self._service) from None
        finally:
            incoming.discard()

    async def result(self, context: CallContext) -> Any:
        """The response with the result, or the response that says why there is none.

        Raises:
            CallTimeout: The deadline comes before the end of the durable job.
            CallFailed: The callee does not respond any more.
        """
        lost_at = monotonic() + OUTAGE
        while True:
            sent_at = monotonic()
            left = context.deadline - sent_at
            if left < LATEST:
                raise CallTimeout("The budget of the call is used up before the job has ended.", service=self._service)
            try:
                wait = f"wait={ceil(min(left, WAIT))}"
                incoming = await self.request("GET", context, "/result", [("prefer", wait)])
            except BudgetExhausted:
                raise
            except CallFailed:
                if sent_at > lost_at:
                    raise
            else:
                members = await _problem_of(incoming)
                if members.get("type") == NOT_FINISHED:
                    lost_at = monotonic() + OUTAGE
                elif incoming.status != 503 or "job" in members:
                    return incoming
                elif sent_at > lost_at:
                    await check_response(incoming, self._service)
                incoming.discard()
            await asyncio.sleep(min(max(0.0, sent_at + PAUSE - monotonic()), left))

    def abandon(self, context: CallContext) -> None:
        """Cancel it, without waiting for that: its caller has given up."""
        _in_background(self._cancelled(context._replace(deadline=monotonic() + CANCEL_TIME)))

    async def _cancelled(self, context: CallContext) -> None:
        try:
            incoming = await self.request("DELETE", context)
            if incoming.status not in (200, 404, 409, 410):
                log.warning("the job %s of %s was not cancelled: %d", self.id, self._service, incoming.status)
            incoming.discard()
        except Exception as error:
            log.warning("the job %s of %s was not cancelled: %s", self.id, self._service, error)


async def _problem_of(incoming: Any) -> dict[str, Any]:
    """The members of a problem document that may say to come again; {} for another response."""
    if incoming.status not in (404, 503) or not is_json_type(incoming.headers.get("content-type", "")):
        return {}
    try:
        return msgspec.json.decode(await incoming.body(MAX_PROBLEM), type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


async def submit_job(exchange: Exchange, service: str, sent: OutgoingRequest, context: CallContext) -> SubmittedJob:
    """Submit a durable job.

    Args:
        exchange: Sends requests to its service.
        service: Name of the service, for errors.
        sent: The request of the submission.
        context: The circumstances of the call.

    Raises:
        HTTPError: The callee refuses the request.
        CallFailed: There is no response that accepts it.
    """
    if is_remote(exchange) and not any(name == KEY for name, _ in sent.headers):
        sent = sent._replace(headers=[*sent.headers, *job_headers(0.0, 0, token_hex(16))])
    incoming = await exchange(sent, context)
    try:
        await check_response(incoming, service)
        await incoming.body(MAX_DOCUMENT)  # the connection serves the next request
        location = incoming.headers.get("location", "")
        if incoming.status != 202 or not location:
            raise CallFailed(
                f"The callee has answered {incoming.status}, and not 202 with a Location: is this a job route there?",
                service=service,
                replica=incoming.replica,
                attempts=incoming.attempts,
                answered=incoming.status,
            )
    finally:
        incoming.discard()
    return SubmittedJob(exchange, service, sent, location)


class JobExchange:
    """The exchange of a call: it submits a durable job, and its response is the result.

    Args:
        exchange: Sends requests to the service of the job route.
        service: Name of the service, for errors.
    """

    def __init__(self, exchange: Exchange, service: str) -> None:
        self._exchange = exchange
        self._service = service

    async def __call__(self, sent: OutgoingRequest, context: CallContext) -> Any:
        """The response with the result. A durable job whose caller gives up is cancelled."""
        submitting = asyncio.ensure_future(submit_job(self._exchange, self._service, sent, context))
        try:
            job = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            _in_background(_abandon_late(submitting, context))
            raise
        try:
            return await job.result(context)
        except BaseException:
            job.abandon(context)
            raise


async def _abandon_late(submitting: asyncio.Future[SubmittedJob], context: CallContext) -> None:
    """Cancel a durable job whose caller has given up before it was accepted."""
    with suppress(Exception):
        (await submitting).abandon(context)


def _in_background(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _cancelling.add(task)
    task.add_done_callback(_cancelling.discard)


class JobTarget(ExchangeTarget):
    """Where calls and submissions of a job route go.

    Args:
        route: The job route.
        writer: Writes its requests.
        reader: Reads its results.
        exchange: Sends the requests.
        service: Name of the service, for errors.
        max_size: Bytes that a result may have.
        seconds: Seconds for a request of a caller without a deadline.
    """

    def __init__(
        self,
        route: Route,
        writer: Writer,
        reader: Reader,
        exchange: Exchange,
        service: str,
        max_size: int,
        seconds: float,
    ) -> None:
        super().__init__(route, writer, reader, JobExchange(exchange, service), service, max_size)
        self.seconds = seconds
        self._plain_exchange = exchange

    def items(self, *_: Any) -> AsyncGenerator[Any, None]:
        """A stream; a durable job has none."""
        raise ConfigurationError.at(self._function, "is a job route, which streams nothing; write `await call(...)`")

    async def submit(
        self,
        arguments: dict[str, Any],
        context: CallContext,
        options: list[tuple[str, str]],
        forwarded: tuple[str, ...],
    ) -> SubmittedJob:
        """Submit a durable job with these arguments; `options` are the headers of the submission."""
        sent = self._writer.write(arguments)
        headers = [*sent.headers, *options, *context.headers(forwarded)]
        return await submit_job(self._plain_exchange, self._service, sent._replace(headers=headers), context)
