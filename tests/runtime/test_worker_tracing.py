"""worker_tracing.py: the author's spans in a worker, also of one that is killed."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import traced_app
from collector import Collector, collecting
from tinysvc import Pool, Service
from tinysvc.runtime.worker_tracing import SPAN_RATE, WorkerRecorder
from tinysvc.telemetry.spans import SpanFields
from tinysvc.testing import serving


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def url(collector: Collector) -> Iterator[str]:
    service = Service(traced_app, pools={"other": Pool(workers=1)})
    with serving(service, cpu_workers=1, traces=collector.url, raise_errors=False) as found:
        yield found


@pytest.fixture(autouse=True)
def _empty(collector: Collector) -> None:
    collector.spans.clear()


def test_span_of_a_worker_is_inside_its_job(url: str, collector: Collector) -> None:
    httpx.get(f"{url}/square?n=2")
    run, inner = collector.wait_for("run /square", "multiply")
    assert (inner.trace_id, inner.parent_id, inner.scope) == (run.trace_id, run.span_id, "traced_app")
    assert inner.attributes.pop("tinysvc.worker") >= 1
    assert inner.attributes == {"n": 2, "tinysvc.pool": "default"}


def test_ended_spans_of_a_killed_worker_arrive(url: str, collector: Collector) -> None:
    httpx.get(f"{url}/dies")
    run, ended = collector.wait_for("run /dies", "before the end")
    assert ended.parent_id == run.span_id
    assert collector.named("never ends") == []


def test_no_worker_and_no_forkserver_loads_the_sdk(url: str) -> None:
    loaded = httpx.get(f"{url}/modules").json()
    assert "opentelemetry.trace" in loaded
    assert not [name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
    assert httpx.get(f"{url}/threads").json() == {"worker": 1, "forkserver": 1}


def test_worker_of_a_service_without_traces_loads_nothing_of_them() -> None:
    with serving(Service(traced_app.modules_of_tinysvc), cpu_workers=1) as url:
        loaded = httpx.get(f"{url}/own-modules", headers={"traceparent": f"00-{'1' * 32}-{'1' * 16}-01"}).json()
    assert not [name for name in loaded if "tracing" in name or "span" in name]


def test_worker_sends_at_most_so_many_spans_a_second(url: str, collector: Collector) -> None:
    httpx.get(f"{url}/flood", timeout=30)
    collector.wait_for("run /flood")
    assert len(collector.named("flood")) < 3000


def test_dropped_spans_are_counted_in_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("tinysvc.runtime.worker_tracing.monotonic", lambda: now)
    recorder, sent = WorkerRecorder(), list[SpanFields]()
    recorder.send = sent.append
    for _ in range(SPAN_RATE + 3):
        recorder.record(SpanFields("a", "", "", "", 0, 1, 2, {}))
    now += 1
    recorder.record(SpanFields("b", "", "", "", 0, 1, 2, {}))
    assert [len(sent), sent[-1].attributes] == [SPAN_RATE + 1, {"tinysvc.spans_dropped_before": 3}]
    assert not recorder.samples_root()


def test_span_in_a_forked_child_is_dropped() -> None:
    recorder = WorkerRecorder()

    def closed(span: SpanFields) -> None:
        raise BlockingIOError

    recorder.send = closed
    recorder.record(SpanFields("a", "", "", "", 0, 1, 2))


def test_invalid_span_of_a_worker_is_refused(url: str, collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    assert httpx.get(f"{url}/lies").json() == 1
    collector.wait_for("run /lies")
    assert "sent an invalid span" in caplog.text


def test_pool_of_threads_records_too(collector: Collector) -> None:
    service = Service(traced_app.square, traced_app.plain_in_worker)
    with serving(service, cpu_workers=0, traces=collector.url) as url:
        httpx.get(f"{url}/square?n=2")
        unsampled = {"traceparent": f"00-{'1' * 32}-{'1' * 16}-00"}
        assert httpx.get(f"{url}/plain-in-worker", headers=unsampled).text == unsampled["traceparent"]
        run, inner = collector.wait_for("run /square", "multiply")
    assert inner.parent_id == run.span_id
