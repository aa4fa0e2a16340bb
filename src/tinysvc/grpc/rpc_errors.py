"""An error response as the status of an RPC: its code, its message, and details that clients can read.

    INVALID_ARGUMENT  422  google.rpc.BadRequest, with the place of each fault
    UNAVAILABLE       503  google.rpc.RetryInfo and grpc-retry-pushback-ms, from Retry-After

Each error has a google.rpc.ErrorInfo: the kind of the problem document, the HTTP status and the request id. They travel
in `grpc-status-details-bin`. An error can choose its code by a header, as in HTTPError(409, "...",
headers=[("grpc-status", "ALREADY_EXISTS")]).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc

from ..client.rpc_statuses import DETAILS, KEPT_HEADERS
from ..core.proto_bytes import bytes_field, number_field
from ..core.responses import PROBLEM, Response
from .rpc_requests import Metadata, metadata_of

Code = grpc.StatusCode

CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ABORTED,
    410: Code.NOT_FOUND,
    412: Code.FAILED_PRECONDITION,
    413: Code.RESOURCE_EXHAUSTED,
    416: Code.OUT_OF_RANGE,
    422: Code.INVALID_ARGUMENT,
    429: Code.UNAVAILABLE,
    431: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELLED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
    507: Code.RESOURCE_EXHAUSTED,
}
"""The code by the HTTP status. Other statuses: FAILED_PRECONDITION below 500, else INTERNAL."""

_BY_NAME = {code.name: code for code in Code} | {str(code.value[0]): code for code in Code}

PUSHBACK = "grpc-retry-pushback-ms"
"""Milliseconds after which a client may try again (gRFC A6)."""

MAX_MESSAGE, MAX_FAULTS, MAX_FAULT = 2048, 12, 96
"""Bytes of the message of a status, percent-encoded; faults in its details, and bytes of each text of one. A client
takes 8 KiB of metadata by default: with more it would see no status at all."""


MAX_FURTHER = 1024
"""Bytes of the problem document's further members, as JSON in the ErrorInfo; longer ones are left out."""

_SAID = frozenset({"type", "title", "status", "detail", "request_id", "started", "errors", "instance"})
"""Members of the problem document that the status says elsewhere."""


class RpcStatus(NamedTuple):
    """The end of an RPC that failed."""

    code: grpc.StatusCode
    message: str
    metadata: Metadata = ()


def code_of(status: int, headers: Mapping[str, str]) -> grpc.StatusCode:
    """The code of an error response with this HTTP status."""
    chosen = _BY_NAME.get(headers.get("grpc-status", "").upper(), Code.OK)
    if chosen is not Code.OK:
        return chosen
    return CODES.get(status, Code.FAILED_PRECONDITION if status < 500 else Code.INTERNAL)


def status_of(response: Response) -> RpcStatus:
    """The status of an RPC whose handler responded with an error."""
    headers = dict(response.headers)
    code = code_of(response.status, headers)
    problem = _problem_of(response)
    message = str(problem.get("detail") or problem.get("title") or f"HTTP status {response.status}")
    message = _cut(message, MAX_MESSAGE // 3)
    metadata = metadata_of(response.headers)
    seconds = headers.get("retry-after", "")
    delay = int(seconds) if seconds.isdecimal() and len(seconds) < 7 else None
    if delay is not None and code is Code.UNAVAILABLE:
        metadata += ((PUSHBACK, str(delay * 1000)),)
    details = _details(code, message, problem, response.status, delay, headers)
    return RpcStatus(code, message, (*metadata, (DETAILS, details)))


def _cut(text: object, size: int) -> str:
    """The text, or as much of it as has so many bytes."""
    return str(text).encode(errors="replace")[:size].decode(errors="ignore")


def _problem_of(response: Response) -> Mapping[str, Any]:
    """The problem document of an error response; for another content that is text, that text as its detail."""
    content = response.content
    if not isinstance(content, (bytes, memoryview)):
        return {}
    try:
        if response.content_type == PROBLEM:
            found = json.loads(bytes(content))  # unlike others it reads half a surrogate pair
            return found if isinstance(found, dict) else {}
        if (response.content_type or "").startswith(("text/plain", "application/json")):
            return {"detail": bytes(content).decode()}
    except ValueError:
        pass
    return {}


def _details(
    code: grpc.StatusCode,
    message: str,
    problem: Mapping[str, Any],
    status: int,
    delay: int | None,
    kept: Mapping[str, str],
) -> bytes:
    """A google.rpc.Status, encoded."""
    reason = str(problem.get("type", "")).removeprefix("urn:tinysvc:")
    info = {"status": str(status)}
    for name in ("request_id", "started"):
        if name in problem:
            info[name] = str(problem[name]).lower() if name == "started" else str(problem[name])
    info |= {name: _cut(kept[name], MAX_FAULT) for name in KEPT_HEADERS if name in kept}
    further = {name: value for name, value in problem.items() if name not in _SAID}
    if further and len(text := json.dumps(further)) <= MAX_FURTHER:
        info["problem"] = text
    details = [_detail("ErrorInfo", _error_info("" if reason == "about:blank" else reason, info))]
    if faults := problem.get("errors"):
        violations = [
            bytes_field(1, _texts(_cut(each.get("place", ""), MAX_FAULT), _cut(each.get("detail", ""), MAX_FAULT)))
            for each in faults[:MAX_FAULTS]
            if isinstance(each, dict)
        ]
        details.append(_detail("BadRequest", b"".join(violations)))
    if delay is not None:
        details.append(_detail("RetryInfo", bytes_field(1, number_field(1, delay))))
    return number_field(1, code.value[0]) + bytes_field(2, message) + b"".join(details)


# The messages of google.rpc (google/rpc/status.proto, google/rpc/error_details.proto)


def _detail(kind: str, message: bytes) -> bytes:
    """One of the `details` of a Status, which are google.protobuf.Any."""
    return bytes_field(3, _texts(f"type.googleapis.com/google.rpc.{kind}", message))


def _error_info(reason: str, metadata: Mapping[str, str]) -> bytes:
    entries = [bytes_field(3, _texts(name, value)) for name, value in metadata.items()]
    return _texts(reason, "tinysvc") + b"".join(entries)


def _texts(first: str, second: str | bytes) -> bytes:
    """The fields 1 and 2: of Any, of ErrorInfo, of an entry of its map, and of a FieldViolation."""
    return bytes_field(1, first) + bytes_field(2, second)
