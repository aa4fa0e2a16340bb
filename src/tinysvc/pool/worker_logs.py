"""Log records of workers, which the server writes with its own loggers.

    in a worker:   logging ──> forward_logs ──> a LOG frame
    in the server: a LOG frame ──> log_record ──> the server's logger of the same name

A job may have taken control of its worker, so nothing in a record is trusted: types are checked, lengths are cut, a
record creates no logger, no text can begin a line of the log, and no field of `extra=` replaces one of the record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic, time
from typing import Any

import msgspec
from msgspec import Struct

from ..core.log_records import MAX_EXTRA, SOURCE, RecordSource, extra_of, json_object, source_here, unformattable
from ..core.tracebacks import INDENT, MAX_LINE_TEXT, indented, one_line
from .leftovers import at_end_of_job

LOG_RATE = 1000
"""Log records that a worker sends in a second. Further records are counted and dropped: a handler that logs in a loop
must not block the server's event loop, which needs about 50 us for each record."""

MAX_LOG_TEXT = 16 * 1024
"""Characters of a log message, and of its traceback, that a worker sends."""

MAX_CLOCK_SKEW = 3600.0
"""Seconds by which the time of a worker's record may differ from the server's, on the same clock. Beyond that, the
server's time counts."""

log = logging.getLogger("tinysvc.worker")


class LogFields(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The fields of a log record in a LOG frame."""

    name: str
    level: int
    message: str
    exception: str
    created: float
    pathname: str
    lineno: int
    function: str
    thread: str
    process: int
    request_id: str
    route: str
    trace_id: str
    span_id: str
    job_id: str
    attempt: int
    extra: bytes
    """A JSON object, or empty."""


# In a worker


def forward_logs(send: Callable[[LogFields], None], level: int) -> None:
    """Pass the log records of this process to `send`, as the LogFields of each; to stderr where it raises OSError.

    The handlers that the author's modules installed at import are removed: the server has imported the same modules,
    and handles each record with the same handlers, once. (If workers kept them, each line would appear twice, and all
    workers would rotate one file.) Handlers that the author installs later, in a resource for example, stay.
    """
    forwarder = _Forwarder(send)
    root = logging.getLogger()
    for logger in [root, *root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            inherited, logger.handlers = logger.handlers, []
            forwarder.replaced += inherited
            if logger is root or (inherited and not logger.propagate):
                logger.addHandler(forwarder)
    root.setLevel(level)


class _Forwarder(logging.Handler):
    def __init__(self, send: Callable[[LogFields], None]) -> None:
        super().__init__()
        self.replaced: list[logging.Handler] = []  # kept alive: their files would warn that they are not closed
        self._send = send
        self._stderr = logging.StreamHandler()
        self._stderr.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self._second = 0
        self._count = 0  # records in that second

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._admits(int(monotonic())):
                self._send(_fields_of_any(record))
        except OSError:  # the server has closed the channel, or this is a forked child
            self._stderr.handle(record)
        except Exception:
            self.handleError(record)  # as every handler does: a traceback on stderr, no exception in the caller

    def _admits(self, second: int) -> bool:
        if second != self._second:
            self.report_dropped()
            self._second, self._count = second, 0
        self._count += 1
        if self._count > LOG_RATE:
            at_end_of_job.add(self.report_dropped)
        return self._count <= LOG_RATE

    def report_dropped(self) -> None:
        """Report how many records were dropped, at the end of the job or in the next second."""
        dropped = self._count - LOG_RATE
        if dropped > 0:
            self._count = LOG_RATE
            text = f"{dropped} log records of this worker were dropped: it may send {LOG_RATE} in a second"
            self._send(_fields(logging.LogRecord(log.name, logging.WARNING, "", 0, text, None, None)))


def _fields_of_any(record: logging.LogRecord) -> LogFields:
    """The fields of a record; of one that cannot be formatted, those of a record that says so."""
    try:
        return _fields(record)
    except Exception as error:
        return _fields(unformattable(record, error))


def _fields(record: logging.LogRecord) -> LogFields:
    source = source_here()
    return LogFields(
        name=_utf8(record.name),
        level=record.levelno,
        message=_utf8(_cut(record.getMessage())),
        exception=_utf8(_exception(record)[-MAX_LOG_TEXT:]),
        created=record.created,
        pathname=_utf8(record.pathname),
        lineno=record.lineno,
        function=_utf8(record.funcName or ""),
        thread=_utf8(record.threadName or ""),
        process=record.process or 0,
        request_id=source.request_id,
        route=source.route,
        trace_id=source.trace_id,
        span_id=source.span_id,
        job_id=source.job_id,
        attempt=source.attempt,
        extra=json_object(extra_of(record)),
    )


def _exception(record: logging.LogRecord) -> str:
    """The tracebacks of a record, as a formatter would append them."""
    exception = record.exc_text or ""
    if record.exc_info and not exception:
        exception = logging.Formatter().formatException(record.exc_info)
    return "\n".join(filter(None, (exception, record.stack_info)))


def _cut(text: str) -> str:
    if len(text) <= MAX_LOG_TEXT:
        return text
    note = f"... ({len(text)} characters)"
    return text[: MAX_LOG_TEXT - len(note)] + note


def _utf8(text: str) -> str:
    """The text with surrogates escaped, as MessagePack needs it."""
    return text.encode(errors="backslashreplace").decode()


# In the server


def log_record(worker: int, pool: str, fields: Any, generation: str = "") -> None:
    """Write a record that `forward_logs` has sent, with the server's logger of that name. Never raises.

    The record has the attributes worker, pool, request_id and route. Its message shows them, too.

    Args:
        worker: Number of the worker.
        pool: Name of its pool.
        fields: Its message.
        generation: Label of its program: the versions of the artifacts that it has open.
    """
    try:
        checked = msgspec.convert(fields, LogFields)
    except msgspec.ValidationError as error:
        log.warning("%s sent an invalid log record: %s", _worker_name(worker, pool), error)
        return
    logger = _logger(checked.name)
    level = min(max(checked.level, 1), logging.CRITICAL)  # a logger caches each level that isEnabledFor sees
    if logger.isEnabledFor(level):
        try:
            logger.handle(_record(logger, level, worker, pool, checked, generation))
        except Exception:  # in a filter or a record factory of the author's: the caller logs nothing itself
            failed = logging.LogRecord(checked.name, level, "", 0, checked.message[:MAX_LOG_TEXT], (), None)
            logging.NullHandler().handleError(failed)


def _logger(name: str) -> logging.Logger:
    """The logger of that name, or its nearest existing parent: new loggers would never be freed."""
    root = logging.getLogger()
    name = name[:MAX_LINE_TEXT]
    while name:
        found = root.manager.loggerDict.get(name)
        if isinstance(found, logging.Logger):
            return found
        name = name.rpartition(".")[0]
    return root


def _record(
    logger: logging.Logger, level: int, worker: int, pool: str, fields: LogFields, generation: str
) -> logging.LogRecord:
    name, path, function = map(one_line, (fields.name, fields.pathname, fields.function))
    source, worker_name = _source(worker, pool, fields, generation), _worker_name(worker, pool)
    where = ", ".join(filter(None, (worker_name, source.place())))
    first, newline, more = indented(source.message).partition("\n")
    message = f"{first} [{where}]{newline}{more}"
    record = logger.makeRecord(name, level, path, fields.lineno, message, (), None, function)
    # `extra=` would raise where a record factory has already set a request_id
    vars(record).update(worker=worker, pool=pool, request_id=source.request_id, route=source.route)
    setattr(record, SOURCE, source)
    for field, value in (source.extra or {}).items():
        if not hasattr(record, field):  # as in `extra=`: no field of the record, and no method, is replaced
            setattr(record, field, indented(value) if isinstance(value, str) else value)
    record.exc_text = INDENT + indented(source.exception) if source.exception else None
    record.threadName, record.process, record.processName = one_line(fields.thread), fields.process, worker_name
    if abs(fields.created - time()) < MAX_CLOCK_SKEW:  # False for NaN, too
        record.created, record.msecs = fields.created, fields.created % 1 * 1000 // 1
    return record


def _source(worker: int, pool: str, fields: LogFields, generation: str) -> RecordSource:
    identity, route, trace, span, job = map(
        one_line, (fields.request_id, fields.route, fields.trace_id, fields.span_id, fields.job_id)
    )
    return RecordSource(
        message=_cut(fields.message),
        request_id=identity,
        route=route,
        trace_id=trace,
        span_id=span,
        worker=worker,
        pool=pool,
        artifact=generation,
        job_id=job,
        attempt=fields.attempt,
        exception=fields.exception[-MAX_LOG_TEXT:],
        extra=_extra(fields.extra),
    )


def _extra(encoded: bytes) -> dict[str, Any]:
    """The fields of `extra=`; none where the worker has sent too many, or no JSON."""
    if not encoded or len(encoded) > 2 * MAX_EXTRA:
        return {}
    try:
        return msgspec.json.decode(encoded, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}


def _worker_name(number: int, pool: str) -> str:
    from ..core.pool_settings import DEFAULT_POOL  # here, as workers need not load the settings

    return f"worker {number}" if pool == DEFAULT_POOL else f"worker {number} of the pool {pool}"
