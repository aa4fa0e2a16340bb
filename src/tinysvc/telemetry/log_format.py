"""The lines of the log: text for people, or one JSON object a line for programs.

    WARNING shop: slow row [GET /items/{name}, request 8f2c-1]

    {"time":"2026-11-29T18:02:42.123456Z","level":"WARNING","logger":"shop","message":"slow row",
     "request_id":"8f2c-1","route":"GET /items/{name}","row":17}

The names of FIELDS are always ours: a field of `extra=` with one of these names is written with EXTRA_PREFIX before it.
"""

from __future__ import annotations

import logging
from time import gmtime, strftime
from typing import Any

import orjson

from ..core.log_records import SOURCE, RecordSource, extra_of, json_object, source_here

FIELDS = (
    *("time", "level", "logger", "message", "process", "request_id", "route", "trace_id", "span_id"),
    *("worker", "pool", "artifact", "job_id", "attempt", "exception"),
)
"""The fields of a JSON line, in their order. Fields without a value are left out."""

EXTRA_PREFIX = "extra_"

MAX_MESSAGE = 64 * 1024
"""Characters of a message, and of its tracebacks, in a JSON line. Collectors cut lines at 256 KiB or less."""

_OUR_LOGGER = "tinysvc"


def source_of(record: logging.LogRecord) -> RecordSource | None:
    """The place that the record carries; None: it is of the code that logs it."""
    source = getattr(record, SOURCE, None)
    return source if isinstance(source, RecordSource) else None


class TextFormatter(logging.Formatter):
    """Adds route and request id to the log lines of the author's code, within a request."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        is_ours = record.name == _OUR_LOGGER or record.name.startswith(_OUR_LOGGER + ".")
        if not is_ours and source_of(record) is None:  # our records name their request themselves
            source = source_here()
            if source.request_id:
                first, newline, more = record.message.partition("\n")
                record.message = f"{first} [{source.place()}]{newline}{more}"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON.

    Args:
        shows_process: Whether each line has the process id: for several server processes.
    """

    def __init__(self, *, shows_process: bool = False) -> None:
        super().__init__()
        self._shows_process = shows_process
        self._second, self._prefix = -1, ""

    def format(self, record: logging.LogRecord) -> str:
        source = source_of(record)
        if source is None:
            message, exception, extra = record.getMessage(), self._exception(record), extra_of(record)
            source = source_here()
        else:
            message = source.message or record.getMessage()
            exception = source.exception or self._exception(record)
            extra = dict(source.extra) if source.extra is not None else extra_of(record)
        fields: dict[str, Any] = {
            "time": self._time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(message),
            "process": record.process if self._shows_process else 0,
            "request_id": source.request_id,
            "route": source.route,
            "trace_id": source.trace_id,
            "span_id": source.span_id,
            "worker": source.worker,
            "pool": source.pool,
            "artifact": source.artifact,
            "job_id": source.job_id,
            "attempt": source.attempt,
            "exception": _cut(exception),
        }
        line = {name: value for name, value in fields.items() if value or name == "message"}
        try:
            encoded = orjson.dumps(line)
        except orjson.JSONEncodeError:  # half a surrogate pair in a text
            encoded = orjson.dumps({name: _plain(value) for name, value in line.items()})
        if more := json_object(_own_names(extra, fields)):
            encoded = encoded[:-1] + b"," + more[1:]
        return encoded.decode()

    def _time(self, created: float) -> str:
        """RFC 3339, in UTC, with microseconds."""
        second = int(created // 1)
        if second != self._second:
            self._prefix = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(second))
            self._second = second
        return f"{self._prefix}{int(created % 1 * 1e6):06d}Z"

    def _exception(self, record: logging.LogRecord) -> str:
        text = self.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
        return "\n".join(filter(None, (text, record.stack_info)))


def _own_names(extra: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The author's fields. One that only repeats ours, as a logging filter for text lines adds it, is left out."""
    taken = extra.keys() & fields.keys()
    if not taken:
        return extra
    repeated = {name for name in taken if extra[name] == fields[name]}
    return {
        EXTRA_PREFIX + name if name in taken else name: value for name, value in extra.items() if name not in repeated
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}... ({len(text)} characters)"


def _plain(value: Any) -> Any:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
