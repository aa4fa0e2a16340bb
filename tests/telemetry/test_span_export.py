"""span_export.py: the queue before the collector, and the addresses of collectors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from collector import collecting
from system import wait_until
from tinysvc import ConfigurationError
from tinysvc.telemetry.span_export import BATCH, MAX_WAITING, OtlpExport, SpanQueue, destination
from tinysvc.telemetry.spans import SpanEvent, SpanFields, SpanLink

TRACE, SPAN = "0" * 31 + "1", "0" * 15 + "1"
LONG = 20.0


def span(name: str = "a") -> SpanFields:
    return SpanFields(name, TRACE, SPAN, "", 0, 1, 2)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.telemetry.span_export.DELAY", 0.01)


class Exports:
    """An exporter whose batches wait for `gate`, and end with `reason`."""

    def __init__(self, reason: str = "") -> None:
        self.batches: list[list[SpanFields]] = []
        self.reason = reason
        self.gate = threading.Event()
        self.began = threading.Event()

    def __call__(self, batch: list[SpanFields]) -> str:
        self.began.set()
        self.gate.wait(LONG)
        self.batches.append(batch)
        return self.reason


def test_spans_are_sent_in_batches_and_the_rest_at_the_end() -> None:
    exports = Exports()
    exports.gate.set()
    queue = SpanQueue(exports, "there")
    for _ in range(2 * BATCH + 1):
        queue.record(span())
    assert queue.close(LONG) == 0
    assert sum(map(len, exports.batches)) == queue.sent == 2 * BATCH + 1
    assert max(map(len, exports.batches)) == BATCH


def test_full_queue_drops_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    exports = Exports()
    queue = SpanQueue(exports, "there")
    queue.record(span())
    assert exports.began.wait(LONG)
    for _ in range(MAX_WAITING + 5):
        queue.record(span())
    assert queue.dropped == 5
    exports.gate.set()
    assert queue.close(LONG) == 0
    (record,) = caplog.records
    assert (
        record.getMessage() == "the collector at there misses 5 spans so far: it takes them more slowly than they come"
    )


def test_collector_that_hangs_holds_the_end_only_for_the_given_time() -> None:
    exports = Exports()
    queue = SpanQueue(exports, "there")
    queue.record(span())
    assert exports.began.wait(LONG)
    queue.record(span())
    assert queue.close(0.01) == 2
    exports.gate.set()


def test_lost_batches_are_reported_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    exports = Exports("refused")
    exports.gate.set()
    queue = SpanQueue(exports, "there")
    for n in range(3 * BATCH):
        queue.record(span(str(n)))
    wait_until(lambda: queue.lost == 3 * BATCH, "all batches have failed")
    assert queue.close(LONG) == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("the collector at there misses")
    assert record.getMessage().endswith("spans so far: refused")


def test_bug_of_the_exporter_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    def fails(batch: list[SpanFields]) -> str:
        raise KeyError("bug")

    queue = SpanQueue(fails, "there")
    queue.record(span())
    wait_until(lambda: queue.lost == 1, "the span is lost")
    queue.record(span())
    wait_until(lambda: queue.lost == 2, "the thread goes on")
    queue.close(LONG)
    assert "KeyError: 'bug'" in caplog.text


def test_every_field_arrives() -> None:
    sent = SpanFields(
        "name",
        TRACE,
        "0" * 15 + "2",
        SPAN,
        2,
        10,
        20,
        {"text": "x", "number": 1, "real": 1.5, "flag": True, "list": ["a", "b"]},
        [SpanEvent("event", 15, {"b": 1})],
        [SpanLink(TRACE, SPAN, {"c": "d"})],
        2,
        "failed",
        "app",
        True,
    )
    with collecting() as collector:
        export = OtlpExport(collector.url, "shop", {})
        assert export([sent]) == ""
        collector.status = 400
        assert "400" in export([sent])
        export.close()
    (got,) = collector.spans
    assert (got.name, got.trace_id, got.span_id, got.parent_id) == (sent.name, TRACE, sent.span_id, SPAN)
    assert (got.kind, got.start, got.end) == (3, 10, 20)  # OTLP counts from 1
    assert got.attributes == sent.attributes
    assert got.events == [("event", {"b": 1})]
    assert got.links == [(TRACE, SPAN)]
    assert (got.status, got.description, got.scope) == (2, "failed", "app")
    assert got.resource["service.name"] == "shop"


@pytest.mark.parametrize(
    ("address", "path"), [("", "/v1/traces"), ("/", "/v1/traces"), ("/v1/traces", "/v1/traces"), ("/own", "/own")]
)
def test_path_of_the_collector(address: str, path: str) -> None:
    with collecting() as collector:
        export = OtlpExport(collector.url + address, "shop", {})
        assert export([span()]) == ""
        export.close()
    assert collector.paths == {path}


@pytest.mark.parametrize(
    ("traces", "environ", "expected"),
    [
        ("http://user:secret@host:4318/x", {}, "http://host:4318/x"),
        ("otlp", {}, "http://localhost:4318"),
        ("otlp", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}, "http://a:1"),
        ("otlp", {"OTEL_EXPORTER_OTLP_ENDPOINT": "a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b"}, "http://b"),
    ],
)
def test_destination_is_named_without_credentials(traces: str, environ: dict[str, str], expected: str) -> None:
    assert destination(traces, environ) == expected


def test_other_protocol_is_refused() -> None:
    make: Callable[[dict[str, str]], OtlpExport] = lambda environ: OtlpExport("otlp", "shop", environ)  # noqa: E731
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc', but"):
        make({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    variables = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    make(variables).close()
