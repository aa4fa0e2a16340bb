"""The status of a failed RPC as an error response: what HTTP would have brought.

A server of tinysvc says the HTTP status, the kind and further members of the problem in a google.rpc.ErrorInfo. Without
one, as from a server in another language, the code alone says the status.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..core.headers import Headers
from ..core.proto_bytes import read_fields
from ..core.responses import PROBLEM

DETAILS = "grpc-status-details-bin"

STATUSES = {
    "CANCELLED": 503,
    "INVALID_ARGUMENT": 422,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 412,
    "ABORTED": 409,
    "OUT_OF_RANGE": 416,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}
"""The HTTP status by the name of a code; of all others 500."""

Metadata = Iterable[tuple[str, str | bytes]]


def details_in(metadata: Metadata | None) -> bytes | None:
    """The google.rpc.Status of a failed RPC; None if it has none."""
    for name, value in metadata or ():
        if name == DETAILS and isinstance(value, bytes):
            return value
    return None


def problem_of(code: str, message: str, details: bytes | None) -> tuple[int, dict[str, Any], dict[str, str]]:
    """HTTP status, problem document and headers of a failed RPC.

    Args:
        code: Name of its code.
        message: Its message.
        details: A google.rpc.Status, encoded; None if it has none.
    """
    status, headers = STATUSES.get(code, 500), dict[str, str]()
    problem: dict[str, Any] = {"detail": message}
    for kind, value in _details(details or b""):
        if kind == "google.rpc.ErrorInfo":
            info = _error_info(value)
            status = int(info.pop("status")) if info.get("status", "").isdecimal() else status
            problem |= _problem_in(info)
            headers |= {name: text for name, text in info.items() if name in KEPT_HEADERS}
        elif kind == "google.rpc.BadRequest":
            faults = [dict(_texts(each)) for number, each in read_fields(value) if number == 1]
            problem["errors"] = [{"place": each.get(1, ""), "detail": each.get(2, "")} for each in faults]
        elif kind == "google.rpc.RetryInfo":
            seconds = next((_number(each, 1) for number, each in read_fields(value) if number == 1), 0)
            headers["retry-after"] = str(seconds)
    return status, {**problem, "status": status}, headers


KEPT_HEADERS = ("www-authenticate", "allow", "accept")
"""Headers of an error that belong to its status."""


def response_of(code: str, message: str, metadata: Metadata | None) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the error response that a failed RPC stands for."""
    status, problem, headers = problem_of(code, message, details_in(metadata))
    body = json.dumps(problem).encode()
    lines = [(b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body))]
    lines += [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    for name, value in metadata or ():
        if name not in headers and name != DETAILS:
            lines.append((name.encode(), value.encode() if isinstance(value, str) else b64encode(value)))
    return status, Headers(lines), body


def _problem_in(info: Mapping[str, str]) -> dict[str, Any]:
    """The members of the problem document that an ErrorInfo has."""
    problem: dict[str, Any] = {}
    if "problem" in info:
        try:
            found = json.loads(info["problem"])
            problem |= found if isinstance(found, dict) else {}
        except ValueError:
            pass  # it is another server's
    if reason := info.get("reason"):
        problem["type"] = f"urn:tinysvc:{reason}"
    if "request_id" in info:
        problem["request_id"] = info["request_id"]
    if "started" in info:
        problem["started"] = info["started"] == "true"
    return problem


# The messages of google.rpc


def _details(status: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each detail in a google.rpc.Status."""
    for number, detail in read_fields(status):
        if number == 3 and isinstance(detail, bytes):
            found = {number: each for number, each in read_fields(detail) if isinstance(each, bytes)}
            yield found.get(1, b"").decode("utf-8", "replace").rpartition("/")[2], found.get(2, b"")


def _error_info(message: bytes) -> dict[str, str]:
    """Reason and metadata of an ErrorInfo; none of another domain."""
    texts, info = dict(_texts(message)), dict[str, str]()
    if texts.get(2) != "tinysvc":
        return info
    for number, entry in read_fields(message):
        if number == 3:
            pair = dict(_texts(entry))
            info[pair.get(1, "")] = pair.get(2, "")
    return {**info, "reason": texts.get(1, "")}


def _texts(message: bytes | int) -> Iterator[tuple[int, str]]:
    for number, value in read_fields(message):
        if isinstance(value, bytes):
            yield number, value.decode("utf-8", "replace")


def _number(message: bytes | int, wanted: int) -> int:
    return next((value for number, value in read_fields(message) if number == wanted and isinstance(value, int)), 0)
