"""log_format.py: records as lines of text and of JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from tinysvc.core.log_records import MAX_EXTRA, SOURCE, RecordSource
from tinysvc.core.request_context import request_id, route_name
from tinysvc.telemetry.log_format import FIELDS, MAX_MESSAGE, JsonFormatter, TextFormatter


def record(message: object = "text", *args: object, name: str = "shop", **extra: Any) -> logging.LogRecord:
    return logging.getLogger("shop").makeRecord(name, 30, "app.py", 7, message, args, None, extra=extra)


def with_source(source: object, message: str = "text", **extra: Any) -> logging.LogRecord:
    made = record(message, **extra)
    setattr(made, SOURCE, source)
    return made


def parsed(of: logging.LogRecord, formatter: JsonFormatter | None = None) -> dict[str, Any]:
    line = (formatter or JsonFormatter()).format(of)
    assert "\n" not in line
    fields: dict[str, Any] = json.loads(line)
    return fields


@pytest.fixture
def within_request() -> Any:
    tokens = request_id.set("5f-1"), route_name.set("GET /items/{name}")
    yield
    request_id.reset(tokens[0])
    route_name.reset(tokens[1])


@pytest.fixture
def _outside() -> Any:
    tokens = request_id.set(""), route_name.set("")  # another test may have set them
    yield
    request_id.reset(tokens[0])
    route_name.reset(tokens[1])


@pytest.mark.usefixtures("_outside")
def test_json_line_has_only_fields_with_a_value() -> None:
    made = record("row %d", 3)
    made.created = 1764439362.25
    expected = {"time": "2025-11-29T18:02:42.250000Z", "level": "WARNING", "logger": "shop", "message": "row 3"}
    assert parsed(made) == expected
    assert parsed(made, JsonFormatter(shows_process=True)) == {**expected, "process": made.process}
    made.created = 1764439362.999999
    assert parsed(made)["time"] == "2025-11-29T18:02:42.999999Z"


@pytest.mark.usefixtures("within_request")
def test_json_line_names_the_request_that_the_code_works_for() -> None:
    fields = parsed(record(row=17))
    assert (fields["request_id"], fields["route"], fields["row"]) == ("5f-1", "GET /items/{name}", 17)
    assert parsed(record(name="tinysvc"))["request_id"] == "5f-1"


def test_source_of_a_record_wins_over_the_running_code() -> None:
    source = RecordSource(
        *(),
        message="slow row",
        request_id="w-1",
        route="POST /predict",
        trace_id="4b",
        span_id="00",
        worker=3,
        pool="default",
        job_id="a1",
        attempt=2,
        exception="Traceback",
        extra={"row": 17},
    )
    fields = parsed(with_source(source, "slow row [worker 3]", ignored=1))
    del fields["time"]
    assert fields == {
        "level": "WARNING",
        "logger": "shop",
        "message": "slow row",
        "request_id": "w-1",
        "route": "POST /predict",
        "trace_id": "4b",
        "span_id": "00",
        "worker": 3,
        "pool": "default",
        "job_id": "a1",
        "attempt": 2,
        "exception": "Traceback",
        "row": 17,
    }
    assert list(fields) == [name for name in FIELDS if name in fields] + ["row"]
    forged = parsed(with_source("text"))
    assert forged["message"] == "text"


@pytest.mark.usefixtures("within_request")
def test_own_fields_win_over_extra_of_the_same_name() -> None:
    fields = parsed(record(route="A to B", request_id="5f-1", time=3, attempt=0))
    assert fields["route"] == "GET /items/{name}"
    assert (fields["extra_route"], fields["extra_time"]) == ("A to B", 3)
    assert "extra_request_id" not in fields  # a filter of the author's has added it for lines of text
    assert isinstance(fields["time"], str)
    assert "route" in parsed(record(route="GET /items/{name}"))


def test_tracebacks_and_stacks_are_in_exception() -> None:
    made = record()
    try:
        raise LookupError("no such row")
    except LookupError:
        made.exc_info = sys.exc_info()
    made.stack_info = "Stack"
    assert parsed(made)["exception"].endswith("LookupError: no such row\nStack")


@pytest.mark.parametrize("text", ["a\nb\r\x00\x1b[1A\u2028", '"}\n{"level":"ERROR', "\ud800", "é" * 10])
def test_no_text_leaves_its_field(text: str) -> None:
    fields = parsed(record("%s", text, note=text))
    assert fields["level"] == "WARNING"
    assert fields["message"] == fields["note"] == text.replace("\ud800", "\\ud800")


def test_json_line_is_bounded() -> None:
    line = JsonFormatter().format(record("x" * 10**6, big=["y" * 10] * 10**5))
    assert len(line) < MAX_MESSAGE + 2 * MAX_EXTRA
    assert json.loads(line)["message"].endswith("... (1000000 characters)")


@pytest.mark.usefixtures("within_request")
def test_text_line_names_the_request_unless_it_does_so_itself() -> None:
    text = TextFormatter("%(levelname)s %(name)s: %(message)s")
    where = "[GET /items/{name}, request 5f-1]"
    assert text.format(record("one\ntwo")) == f"WARNING shop: one {where}\ntwo"
    assert text.format(record(name="tinysvc.http")) == "WARNING tinysvc.http: text"
    assert text.format(record(name="tinysvcs")) == f"WARNING tinysvcs: text {where}"
    assert text.format(with_source(RecordSource(request_id="w-1"))) == "WARNING shop: text"
