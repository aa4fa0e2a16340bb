"""tracing.py: the spans of requests, as a collector gets them."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

import traced_app
from collector import Collector, Span, collecting
from commands import HELLO, served, tinysvc
from system import wait_until
from tinysvc import ConfigurationError, Pool, Service
from tinysvc.testing import serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
SERVER, INTERNAL = 2, 1
ERROR = 2


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def url(collector: Collector) -> Iterator[str]:
    """Records the requests of callers that record theirs, and no other one."""
    service = Service(traced_app, name="shop", pools={"other": Pool(workers=1)})
    with serving(service, cpu_workers=1, traces=collector.url, trace_sample=0, raise_errors=False) as found:
        yield found


def traced(url: str, path: str, collector: Collector, *names: str) -> list[Span]:
    """The spans with these names of one recorded request."""
    collector.spans.clear()
    httpx.get(url + path, headers={"traceparent": SAMPLED, "tracestate": "a=b"}, timeout=30)
    return collector.wait_for(*names)


def test_request_has_a_span_by_the_conventions(url: str, collector: Collector) -> None:
    (span,) = traced(url, "/hello/Ada?secret=1", collector, "GET /hello/{name}")
    assert (span.trace_id, span.parent_id, span.kind, span.status) == (TRACE, PARENT, SERVER, 0)
    assert 0 <= span.end - span.start < 30e9
    assert abs(span.start / 1e9 - time.time()) < 60
    known = {name: value for name, value in span.attributes.items() if "request.id" not in name}
    assert known.pop("user_agent.original").startswith("python-httpx")
    assert known == {
        "http.request.method": "GET",
        "http.route": "/hello/{name}",
        "http.response.status_code": 200,
        "url.path": "/hello/Ada",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": int(url.rpartition(":")[2]),
        "client.address": "127.0.0.1",
        "greeted": "Ada",  # set by the handler
    }
    assert span.resource["service.name"] == "shop"
    assert collector.paths == {"/v1/traces"}


def test_request_names_its_span_and_the_authors_spans_are_inside(url: str, collector: Collector) -> None:
    collector.spans.clear()
    seen = httpx.get(f"{url}/hello/a", headers={"traceparent": SAMPLED}).json()
    span, inner = collector.wait_for("GET /hello/{name}", "think")
    assert seen == {
        "traceparent": f"00-{TRACE}-{span.span_id}-01",
        "inner": f"00-{TRACE}-{inner.span_id}-01",
    }
    assert (inner.parent_id, inner.kind, inner.scope) == (span.span_id, INTERNAL, "traced_app")
    assert inner.attributes == {"n": 1}
    assert inner.events == [("idea", {"good": True})]


def test_span_of_a_handler_in_a_thread(url: str, collector: Collector) -> None:
    span, inner = traced(url, "/plain", collector, "GET /plain", "in a thread")
    assert inner.parent_id == span.span_id


def test_stream_ends_the_span_at_its_end(url: str, collector: Collector) -> None:
    (span,) = traced(url, "/counts", collector, "GET /counts")
    assert (span.status, span.attributes["http.response.status_code"]) == (0, 200)


def test_aborted_stream_has_an_error(url: str, collector: Collector) -> None:
    collector.spans.clear()
    with httpx.stream("GET", f"{url}/endless", headers={"traceparent": SAMPLED}) as response:
        next(response.iter_raw())
    (span,) = collector.wait_for("GET /endless")
    assert (span.status, span.attributes["http.response.status_code"]) == (ERROR, 200)


def test_failed_request_has_an_error_without_its_text(url: str, collector: Collector) -> None:
    (span,) = traced(url, "/fails", collector, "GET /fails")
    assert (span.status, span.attributes["error.type"], span.description) == (ERROR, "500", "")


def test_websocket_has_one_span(url: str, collector: Collector) -> None:
    collector.spans.clear()
    with connect(f"ws{url.removeprefix('http')}/echo", additional_headers={"traceparent": SAMPLED}) as socket:
        socket.send("a")
        assert socket.recv() == "a"
    (span,) = collector.wait_for("GET /echo")
    assert (span.trace_id, span.status) == (TRACE, 0)


def test_disconnect_ends_the_span(url: str, collector: Collector) -> None:
    collector.spans.clear()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{url}/slow", headers={"traceparent": SAMPLED}, timeout=0.3)
    (span,) = collector.wait_for("GET /slow")
    assert (span.status, span.attributes["error.type"]) == (ERROR, "CancelledError")


def test_unknown_path_gives_no_name(url: str, collector: Collector) -> None:
    (span,) = traced(url, "/nowhere/at/all", collector, "GET")
    assert "http.route" not in span.attributes


@pytest.mark.parametrize("given", ["", UNSAMPLED, "00-not-valid", f"ff{SAMPLED[2:]}"])
def test_unrecorded_request_keeps_its_header_and_costs_the_author_nothing(
    url: str, collector: Collector, given: str
) -> None:
    collector.spans.clear()
    seen = httpx.get(f"{url}/hello/a", headers={"traceparent": given} if given else {}).json()
    assert seen["traceparent"] == given
    traced(url, "/plain", collector, "GET /plain")
    assert set(collector.names()) == {"GET /plain", "in a thread"}
    assert not seen["inner"].endswith("-01")


def test_all_requests_but_probes_and_scrapes_are_recorded_by_default(collector: Collector) -> None:
    collector.spans.clear()
    with serving(Service(traced_app.plain, traced_app.hello), traces=collector.url, metrics="/metrics") as url:
        for path in ("/livez", "/readyz", "/metrics", "/plain"):
            assert httpx.get(url + path).status_code == 200
        seen = httpx.get(f"{url}/hello/a", headers={"traceparent": UNSAMPLED}).json()
    assert seen["traceparent"] == UNSAMPLED
    assert [span.name for span in collector.spans if span.scope == "tinysvc"] == ["GET /plain"]
    assert collector.named("GET /plain")[0].parent_id == ""


def test_collector_that_hangs_delays_no_request_and_no_end(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.gate.clear()
    started = time.monotonic()
    try:
        with (
            serving(Service(traced_app.plain), traces=collector.url, shutdown_timeout=1) as url,
            httpx.Client(base_url=url, timeout=10) as client,
        ):
            for _ in range(300):
                assert client.get("/plain").status_code == 200
    finally:
        collector.gate.set()
    assert time.monotonic() - started < 30
    assert "spans were not sent before the server ended" in caplog.text


def test_collector_that_is_down_costs_spans_and_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinysvc.runtime.tracing.LAST_SENDING", 0.2)
    with serving(Service(traced_app.plain), traces="http://127.0.0.1:1") as url:
        assert httpx.get(f"{url}/plain").status_code == 200
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert (record.name, record.getMessage()) == ("tinysvc.traces", "2 spans were not sent before the server ended")


def test_metrics_count_spans_and_name_traces(collector: Collector) -> None:
    with serving(Service(traced_app.plain), traces=collector.url, trace_sample=0, metrics="/metrics") as url:
        httpx.get(f"{url}/plain", headers={"traceparent": SAMPLED})
        collector.wait_for("GET /plain")
        wait_until(lambda: 'outcome="sent"} 2' in httpx.get(f"{url}/metrics").text, "both spans are counted")
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        assert f'trace_id="{TRACE}"' in httpx.get(f"{url}/metrics", headers=accept).text


def test_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with (
        pytest.raises(ConfigurationError, match="http/protobuf only"),
        serving(Service(traced_app.plain), traces="otlp"),
    ):
        pass


def test_command_line_with_the_variables_of_opentelemetry(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(HELLO)
    collector.spans.clear()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "named",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
    with served(
        *tinysvc("app", "--traces", "otlp", "--workers", "2", "--cpu-workers", "1"), cwd=tmp_path, **variables
    ) as server:
        for _ in range(8):
            httpx.get(f"{server.url}/pid")
        spans = collector.wait_for("GET /pid", "run /pid")
    assert spans[1].parent_id in {span.span_id for span in collector.named("GET /pid")}
    assert spans[0].resource["service.name"] == "named"
    assert spans[0].resource["deployment.environment"] == "test"


def test_missing_library_is_named_with_its_remedy() -> None:
    code = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from tinysvc import ConfigurationError, Service
        from tinysvc.testing import serving

        try:
            with serving(Service(), traces="otlp"):
                pass
        except ConfigurationError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'tinysvc[otel]'" in done.stdout
