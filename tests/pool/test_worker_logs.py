"""worker_logs.py: log records as a worker sends them, and as the server writes them."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import log_jobs
from log_processes import run_process
from tinysvc import ProcessPoolExecutor
from tinysvc.core.request_context import current_attempt, request_id, route_name
from tinysvc.pool import worker_logs
from tinysvc.pool.worker_logs import LOG_RATE, MAX_LOG_TEXT, LogFields, log_record
from tinysvc.telemetry.log_format import JsonFormatter

# In a worker


@pytest.fixture
def sent() -> list[LogFields]:
    return []


@pytest.fixture
def logger(sent: list[LogFields]) -> logging.Logger:
    """A logger outside of the tree, whose records go to `sent` as after a frame."""

    def send(fields: LogFields) -> None:
        sent.append(msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=LogFields))

    logger = logging.Logger("shop.model")
    logger.addHandler(worker_logs._Forwarder(send))
    return logger


def test_record_is_sent_with_its_source_and_its_request(logger: logging.Logger, sent: list[LogFields]) -> None:
    for variable in (request_id, route_name):
        variable.set("")  # another test may have set it
    tokens = request_id.set("5f-1"), route_name.set("POST /predict")
    logger.warning("slow row %d", 3)
    request_id.reset(tokens[0])
    route_name.reset(tokens[1])
    logger.info("later")
    first, second = sent
    assert msgspec.structs.astuple(first)[:4] == ("shop.model", logging.WARNING, "slow row 3", "")
    assert (first.request_id, first.route) == ("5f-1", "POST /predict")
    assert (first.pathname, first.function) == (__file__, "test_record_is_sent_with_its_source_and_its_request")
    assert (first.thread, first.process) == ("MainThread", os.getpid())
    assert (second.request_id, second.route, second.lineno - first.lineno) == ("", "", 3)


def test_tracebacks_and_stacks_are_sent_as_text(logger: logging.Logger, sent: list[LogFields]) -> None:
    try:
        raise LookupError("no such row")
    except LookupError:
        logger.exception("failed", stack_info=True)
    assert sent[0].exception.startswith("Traceback (most recent call last):\n")
    assert "LookupError: no such row\nStack (most recent call last):\n" in sent[0].exception


def test_any_text_is_sent_but_long_text_is_cut(logger: logging.Logger, sent: list[LogFields]) -> None:
    logger.error("\udcff%s", "x" * 1_000_000)
    try:
        raise LookupError("y" * 1_000_000 + "the end")
    except LookupError:
        logger.exception("\ud800")
    assert sent[0].message.startswith("\\udcffxxx")
    assert sent[0].message.endswith("x... (1000001 characters)")
    assert len(sent[1].exception) == MAX_LOG_TEXT
    assert sent[1].exception.endswith("the end")


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("arguments", [("%d", "three"), ("%s %s", 1), ("%s", NoText()), (NoText(),)])
def test_unformattable_message_is_reported(
    logger: logging.Logger, sent: list[LogFields], capsys: pytest.CaptureFixture[str], arguments: tuple[Any, ...]
) -> None:
    logger.error(*arguments)
    logger.error("the next")
    report, following = sent
    assert " cannot be formatted: " in report.message
    assert f"; see {__file__}:" in report.message
    assert following.message == "the next"
    assert capsys.readouterr().err == ""


def test_extra_fields_trace_and_job_are_sent(logger: logging.Logger, sent: list[LogFields]) -> None:
    token = current_attempt.set(("a1", 2))
    logger.warning("slow row", extra={"row": 17})
    current_attempt.reset(token)
    assert (sent[0].job_id, sent[0].attempt, sent[0].extra) == ("a1", 2, b'{"row":17}')


def test_records_go_to_stderr_when_the_channel_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    def send(fields: LogFields) -> None:
        raise BrokenPipeError

    logger = logging.Logger("shop")
    logger.addHandler(worker_logs._Forwarder(send))
    logger.info("closing %s", "resources")
    assert capsys.readouterr().err == "INFO shop: closing resources\n"


def test_failing_channel_raises_nothing_in_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    def send(fields: LogFields) -> None:
        raise ValueError("not a channel")

    logger = logging.Logger("shop")
    logger.addHandler(worker_logs._Forwarder(send))
    logger.error("lost")
    assert "ValueError: not a channel" in capsys.readouterr().err


def test_excess_records_are_dropped_and_counted(
    logger: logging.Logger, sent: list[LogFields], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_logs, "monotonic", lambda: 100.0)
    for number in range(5 * LOG_RATE):
        logger.info("row %d", number)
    assert [fields.message for fields in sent] == [f"row {number}" for number in range(LOG_RATE)]
    monkeypatch.setattr(worker_logs, "monotonic", lambda: 101.0)
    logger.info("after")
    logger.info("and on")
    notice, *after = sent[LOG_RATE:]
    assert (notice.name, notice.level) == ("tinysvc.worker", logging.WARNING)
    assert notice.message.startswith(f"{4 * LOG_RATE} log records of this worker were dropped")
    assert [fields.message for fields in after] == ["after", "and on"]


def test_each_record_is_forwarded_once_and_written_nowhere_else(tmp_path: Path) -> None:
    out, err = run_process(f"forward_like_a_worker({str(tmp_path)!r})", env={**os.environ, "PYTHONDEVMODE": "1"})
    assert out == "['root', 'loud', 'apart', 'loud.below']\n"
    assert err == ""
    assert (tmp_path / "log").read_text() == ""


# In the server


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The lines that the loggers `shop`, `tinysvc.worker` and the root write in the usual format."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    logging.getLogger("shop")
    root.addHandler(handler)
    yield written
    root.removeHandler(handler)


FIELDS = LogFields(
    *("shop", 30, "slow row", "", 0.0, "/srv/shop.py", 12, "predict", "MainThread", 7, "5f-1", "POST /predict"),
    *("", "", "", 0, b""),
)


def changed(**field: Any) -> list[Any]:
    return [field.get(name, value) for name, value in msgspec.structs.asdict(FIELDS).items()]


def test_record_names_its_worker_route_and_request(lines: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    log_record(3, "default", changed(name="shop.model"))
    log_record(3, "training", changed(request_id="", route=""))
    assert lines.getvalue().splitlines() == [
        "WARNING shop.model: slow row [worker 3, POST /predict, request 5f-1]",
        "WARNING shop: slow row [worker 3 of the pool training]",
    ]
    record = caplog.records[0]
    shown = {name: getattr(record, name) for name in ("worker", "pool", "request_id", "route")}
    assert shown == {"worker": 3, "pool": "default", "request_id": "5f-1", "route": "POST /predict"}
    assert (record.filename, record.lineno, record.funcName, record.process) == ("shop.py", 12, "predict", 7)


def test_plausible_time_of_a_record_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    log_record(3, "default", changed())
    now = caplog.records[0].created
    assert now > 1e9
    for created in (now - 1.75, float("nan"), float("inf"), 1e300):
        log_record(3, "default", changed(created=created))
    _, true, *others = caplog.records
    assert true.created == now - 1.75
    assert 0 <= true.msecs < 1000
    assert all(abs(record.created - now) < 60 for record in others)


def test_traceback_follows_its_record(lines: io.StringIO) -> None:
    log_record(3, "default", changed(message="two\nlines", exception="Traceback:\nLookupError: x"))
    assert lines.getvalue().splitlines()[1:] == ["    lines", "    Traceback:", "    LookupError: x"]


FORGED = ["\nERROR tinysvc: forged", "\rERROR", "\x1b[1A", "\x85ERROR", "\u2028ERROR", "\x0bERROR", "\0"]


@pytest.mark.parametrize("text", FORGED)
@pytest.mark.parametrize(
    "field",
    ["name", "message", "exception", "pathname", "function", "thread", "request_id", "route", "trace_id", "job_id"],
)
def test_no_field_can_forge_a_line(lines: io.StringIO, field: str, text: str) -> None:
    formatter = logging.getLogger().handlers[-1].formatter
    assert formatter is not None
    formatter._style._fmt = "%(levelname)s %(name)s %(pathname)s %(funcName)s %(threadName)s: %(message)s"
    log_record(3, "default", changed(**{field: f"shop{text}"}))
    first, *more = lines.getvalue().rstrip("\n").splitlines()
    assert first.startswith("WARNING shop")
    assert all(line.startswith("    ") for line in more)
    assert first.isprintable()
    assert all(line.isprintable() for line in more)


def test_record_names_the_artifact_of_its_worker(lines: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    log_record(3, "default", changed(), "churn@8")
    assert '"pool":"default","artifact":"churn@8"' in JsonFormatter().format(caplog.records[0])


def test_extra_fields_replace_nothing(lines: io.StringIO, caplog: pytest.LogCaptureFixture) -> None:
    extra = b'{"row":17,"msg":"x","worker":9,"getMessage":1,"tinysvc_source":{},"note":"a\\nERROR forged"}'
    log_record(3, "default", changed(extra=extra, job_id="a1", attempt=2))
    (record,) = caplog.records
    assert (vars(record)["row"], vars(record)["worker"], vars(record)["note"]) == (17, 3, "a\n    ERROR forged")
    assert lines.getvalue() == "WARNING shop: slow row [worker 3, POST /predict, request 5f-1, job a1, attempt 2]\n"
    assert JsonFormatter().format(record).endswith('"note":"a\\nERROR forged"}')


@pytest.mark.parametrize("extra", [b"x", b"[1]", b"[" * 10_000, b'{"a":"' + b"x" * 100_000 + b'"}', b"\xff"])
def test_invalid_extra_fields_are_left_out(caplog: pytest.LogCaptureFixture, extra: bytes) -> None:
    log_record(3, "default", changed(extra=extra))
    assert caplog.records[0].message.startswith("slow row")


HOSTILE: list[Any] = [
    None,
    7,
    "text",
    b"bytes",
    {},
    [],
    [[]] * 12,
    changed()[:-1],
    [*changed(), "one more"],
    changed(name=None),
    changed(name=b"shop"),
    changed(level="WARNING"),
    changed(level=1.5),
    changed(message=["x"]),
    changed(created="now"),
    changed(lineno=None),
    changed(request_id={}),
    changed(extra={}),
]


@pytest.mark.parametrize("fields", HOSTILE, ids=repr)
def test_invalid_record_is_reported(lines: io.StringIO, fields: Any) -> None:
    log_record(3, "default", fields)
    (line,) = lines.getvalue().splitlines()
    assert line.startswith("WARNING tinysvc.worker: worker 3 sent an invalid log record: ")


def test_extreme_values_are_cut(lines: io.StringIO) -> None:
    log_record(3, "default", changed(level=2**63, lineno=-(2**63), message="x" * 1_000_000, route="y" * 1_000_000))
    log_record(3, "default", changed(level=-5, message="below the level"))
    (line,) = lines.getvalue().splitlines()
    assert line.startswith("CRITICAL shop: xxx")
    assert len(line) < MAX_LOG_TEXT + 2000


def test_records_create_no_loggers(lines: io.StringIO) -> None:
    root = logging.getLogger()
    before = set(root.manager.loggerDict)
    for number in range(2000):
        log_record(3, "default", changed(name=f"made.up.{number}", level=number))
    for name in ("", "root", ".", "...", "a" * 100_000, "." * 100_000):
        log_record(3, "default", changed(name=name))
    assert set(root.manager.loggerDict) == before
    assert len(vars(root)["_cache"]) <= logging.CRITICAL
    assert "WARNING made.up.30: slow row" in lines.getvalue()


def test_levels_of_the_server_apply(lines: io.StringIO) -> None:
    shop = logging.getLogger("shop")
    shop.setLevel(logging.ERROR)
    try:
        log_record(3, "default", changed(name="shop.model"))
        log_record(3, "default", changed(name="shop.model", level=logging.ERROR, message="shown"))
    finally:
        shop.setLevel(logging.NOTSET)
    assert [line.partition(" [")[0] for line in lines.getvalue().splitlines()] == ["ERROR shop.model: shown"]


def test_failing_filter_is_reported_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(record: logging.LogRecord) -> bool:
        raise RuntimeError("in a filter")

    shop = logging.getLogger("shop")
    shop.addFilter(failing)
    try:
        log_record(3, "default", changed())
    finally:
        shop.removeFilter(failing)
    assert "RuntimeError: in a filter" in capsys.readouterr().err


# With a pool


@pytest.mark.asyncio
async def test_logs_and_prints_of_a_worker_are_visible(
    nothing_left: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("shop.model")
    async with ProcessPoolExecutor(1) as pool:
        await pool.run(log_jobs.log_and_print, "row")
    slow, failed = (record for record in caplog.records if record.name == "shop.model")
    assert slow.getMessage() == "slow row [worker 1, POST /predict, request 5f-1]"
    assert failed.levelname == "ERROR"
    assert failed.exc_text is not None
    assert failed.exc_text.endswith("ValueError: row")
    out, err = capfd.readouterr()
    assert out == "print row\n"
    assert err == "error row\n"
