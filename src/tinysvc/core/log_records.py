"""What a log record says beside its text: the request, the worker and the job that it is of, and the author's `extra=`.

    log.warning("slow row", extra={"row": 17})

A record of this process is of the code that logs it: `source_here` finds its request. A record that arrives from
a worker, and an access line, are of another place: they carry a RecordSource, which wins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from .request_context import current_attempt, request_id, route_name
from .trace_context import current_trace

MAX_EXTRA = 16 * 1024
"""Bytes of JSON of all `extra=` fields of one record: as much as of its message."""

MAX_EXTRA_FIELDS = 64
"""Fields of `extra=` in one record; more are a whole object that should be one field."""

MAX_FIELD_NAME = 100
"""Characters of the name of such a field."""

SOURCE = "tinysvc_source"
"""The attribute of a record that holds its RecordSource."""


class RecordSource(Struct, kw_only=True, gc=False):
    """The place that a record comes from. An empty text, and 0, stand for none."""

    message: str = ""
    """The message without the place, which the text format adds to it."""
    request_id: str = ""
    route: str = ""
    trace_id: str = ""
    span_id: str = ""
    worker: int = 0
    pool: str = ""
    artifact: str = ""
    """The versions of the artifacts that the worker has open, as in "churn@8"."""
    job_id: str = ""
    """Of a durable job."""
    attempt: int = 0
    exception: str = ""
    """Tracebacks, as text."""
    extra: Mapping[str, Any] | None = None
    """Further fields; None: the attributes of the record."""

    def place(self) -> str:
        """The request, the trace and the durable job in words, for a line of text."""
        parts = [self.route] if self.route else []
        if self.request_id:
            parts.append(f"request {self.request_id}")
        if self.trace_id:
            parts.append(f"trace {self.trace_id}")
        if self.job_id:
            parts.append(f"job {self.job_id}, attempt {self.attempt}")
        return ", ".join(parts)


def source_here() -> RecordSource:
    """The request and the job that the calling code works for."""
    trace = current_trace()
    job_id, attempt = current_attempt.get()
    return RecordSource(
        request_id=request_id.get(),
        route=route_name.get(),
        trace_id=trace.trace_id if trace else "",
        span_id=trace.span_id if trace else "",
        job_id=job_id,
        attempt=attempt,
    )


def unformattable(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    """A record in place of one whose message has no text: logging itself would print to stderr, which may block."""
    try:
        message = repr(record.msg)[:200]
    except Exception:
        message = f"of the type {type(record.msg).__name__}"
    reason = f"{type(error).__name__}: {_text_of(error)}"
    text = f"the log message {message} cannot be formatted: {reason}; see {record.pathname}:{record.lineno}"
    return logging.LogRecord("tinysvc.log", logging.ERROR, record.pathname, record.lineno, text, None, None)


_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", SOURCE}


def extra_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that `extra=` has added to the record."""
    fields = vars(record)
    return {name: fields[name] for name in fields if name not in _USUAL}


def json_object(fields: Mapping[str, Any]) -> bytes:
    """The fields as a JSON object of about MAX_EXTRA bytes at most; b"" without fields."""
    if not fields:
        return b""
    if len(fields) <= MAX_EXTRA_FIELDS:
        try:
            whole = orjson.dumps(fields, default=_text_of)
        except Exception:
            whole = None  # one of the values has no JSON: which one is found below
        if whole is not None and len(whole) <= MAX_EXTRA:
            return whole
    return orjson.dumps(_bounded(fields))


def _bounded(fields: Mapping[str, Any]) -> dict[str, orjson.Fragment]:
    """The values as JSON, MAX_EXTRA bytes in all. A value that has no JSON, or is too long, is replaced by its text."""
    left, encoded = MAX_EXTRA, {}
    for number, (name, value) in enumerate(fields.items()):
        name = _plain(str(name)[:MAX_FIELD_NAME])
        if number >= MAX_EXTRA_FIELDS or left <= len(name):
            encoded["extra_dropped"] = orjson.Fragment(b"%d" % (len(fields) - number))
            break
        text = _json(value)
        if len(text) + len(name) > left:
            kept = text[: (left - len(name)) // 2].decode(errors="ignore")
            text = orjson.dumps(f"{kept}... ({len(text)} bytes)")
        left -= len(text) + len(name)
        encoded[name] = orjson.Fragment(text)
    return encoded


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_text_of, option=orjson.OPT_NON_STR_KEYS)
    except Exception:  # too deep, a whole number of more than 64 bits, half a surrogate pair, or the value's own error
        return orjson.dumps(_text_of(value))


def _text_of(value: Any) -> str:
    try:
        return _plain(str(value)[:MAX_EXTRA])
    except Exception as error:
        return f"<{type(value).__name__} without text: {type(error).__name__}>"


def _plain(text: str) -> str:
    """The text with surrogates escaped: JSON is UTF-8."""
    return text.encode(errors="backslashreplace").decode()
