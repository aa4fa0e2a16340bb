"""The messages between the server and the program of its cpu routes: what a job asks for, and what it replies.

    RequestMessage    a request; the body of the job is the request's           ──> ResponseHead, and the body
    CallMessage       a call by `call(...)`; the body is (args, kwargs)         ──> CallReply, and a pickle
    BatchMessage      several requests; the body is those of all, joined        ──> BatchReply, and the bodies, joined
    DurableMessage    an attempt of a durable job; the body is the request's,   ──> DurableReply, and the body of the
                      and the value that an earlier attempt saved                   result
    ShadowMessage     a request for the candidate of a route; the body is the   ──> ShadowReply, without a body
                      request's, and the content of its response

The server makes the first column (cpu_handlers.py, cpu_calls.py, batching.py, attempt_jobs.py, shadows.py) and a
worker the second one (cpu_endpoints.py, durable_endpoints.py, candidate_endpoints.py). Each message travels as the
`meta` of a frame: see pool/frames.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta

from ..core.requests import Peer
from ..pool.frames import ErrorText, MessageTypes
from .call_messages import CallAnswer, CallQuestion
from .job_messages import JobAnswer, ProgressReport, SaveRequest
from .message import Message


class RequestMessage(Message, tag=0):
    """One request for an endpoint."""

    endpoint: int
    """The position of the endpoint in the program."""
    method: str
    path: str
    query: str
    path_params: dict[str, str] | None
    headers: Sequence[tuple[bytes, bytes]]
    peer: Peer
    id: str
    resources: bytes | None
    """The values of the request's own resources, pickled."""
    deadline: float | None = None
    """Point in time (`time.monotonic`) when the job is killed."""


class CallMessage(Message, tag=1):
    """A call of an endpoint's handler."""

    endpoint: int
    lengths: list[int]
    """Of the pickle's pieces, in bytes: see frames.pickle_pieces."""
    caller: str
    """The id of the caller's request."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    """What the caller passes on: its trace, and its place in the chain of calls."""
    deadline: float | None = None
    """As in RequestMessage."""


class BatchMessage(Message, tag=2):
    """Requests for an endpoint that computes them together."""

    endpoint: int
    requests: list[RequestMessage]
    lengths: list[int]
    """Of their bodies, in bytes."""


class DurableMessage(Message, tag=3):
    """One attempt of a durable job."""

    request: RequestMessage
    """The request that was accepted. Its deadline is that of the attempt."""
    job_id: str
    attempt: int
    size: int
    """Bytes of the request's body. The rest of the body is the saved value."""
    has_saved: bool
    start_by: float | None = None
    """Point in time (CLOCK_BOOTTIME) after which another server may run the next attempt. None: no limit."""

    @property
    def endpoint(self) -> int:
        """The position of the endpoint in the program."""
        return self.request.endpoint


class ShadowMessage(Message, tag=4):
    """A request that has its response, for the candidate of its route."""

    request: RequestMessage
    size: int
    """Bytes of the request's body. The rest of the body is the content of the response."""
    content_type: str | None
    """Of the response."""
    coding: str = ""
    """The Content-Encoding of the response."""

    @property
    def endpoint(self) -> int:
        """The position of the candidate's endpoint in the program."""
        return self.request.endpoint

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """None: the job belongs to no trace, as the request has ended."""
        return ()


class ResponseHead(Message, tag=0):
    """The response to one request."""

    status: int
    content_type: str | None
    headers: list[tuple[str, str]]


class CallReply(Message, tag=1):
    """The result of a call, or its exception, whose body is the result of `pickled_error`."""

    lengths: list[int]
    failure: ErrorText | None = None


class BatchPart(Message):
    """One request of a batch: its response, or its error."""

    length: Annotated[int, Meta(ge=0)]
    """Bytes of its body."""
    head: ResponseHead | None
    error: ErrorText | None = None


class BatchReply(Message, tag=2):
    """The outcomes of a batch, in the order of its requests."""

    parts: list[BatchPart]


class AttemptFailure(Message):
    """Why an attempt of a durable job has no result."""

    cause: str
    """As in the record: "error", "unencodable", "not-started", "saved-unreadable" or "arguments-no-longer-fit"."""
    detail: str
    """The type and the message of the exception, for the author."""
    is_final: bool
    """No further attempt can succeed."""
    counts: bool
    """Whether the attempt is one of those that `Retry(attempts=...)` allows."""
    problem: dict[str, Any]
    """The members of a problem document (RFC 9457), for the client."""
    error: ErrorText | None = None
    """For the log; None: the client knows all."""


class DurableReply(Message, tag=3):
    """The end of an attempt of a durable job: the head of the response, whose content is the body, or the failure."""

    status: int
    content_type: str | None
    headers: list[tuple[str, str]]
    failure: AttemptFailure | None = None


class ShadowReply(Message, tag=4):
    """What came of a candidate's response, which is discarded."""

    seconds: float
    """Of the candidate's computation."""
    status: int
    """Of the candidate's response; 0 if there is none, as this worker does not have the candidate."""
    difference: float | None = None
    """The result of the author's `compare`."""
    failure: ErrorText | None = None
    """The exception of the candidate, or of `compare`."""


MESSAGE_TYPES = MessageTypes(
    RequestMessage | CallMessage | BatchMessage | DurableMessage | ShadowMessage,
    ResponseHead | CallReply | BatchReply | DurableReply | ShadowReply,
    CallQuestion | ProgressReport | SaveRequest,
    CallAnswer | JobAnswer | None,
)
