"""exposition.py: Prometheus' own parser and promtool read what is written."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from tinysvc.telemetry.exposition import SLICE, expose, exposed_name
from tinysvc.telemetry.instruments import Registry
from tinysvc.telemetry.snapshots import Metric, Point, Snapshot

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
STRANGE = 'a "quoted"\\ line\nand ünïcode'


@pytest.fixture
def snapshot() -> Snapshot:
    registry = Registry()
    durations = registry.histogram("http.server.request.duration", "Time.", ["http.route", "error.type"])
    series = durations.of("/items/{name}", STRANGE)
    for seconds in (0.001, 0.005, 0.2, 20):
        series.observe(seconds)
    series.add_exemplar(6, "0af7651916cd43dd8448eb211c80319c", 0.2)
    registry.counter("tinysvc.pool.jobs", "Jobs.", ["pool"]).of("default").add(3)
    registry.gauge("tinysvc.pool.queue.length", "Jobs that wait.").of().set(7)
    registry.gauge("tinysvc.worker.memory", "Memory.", unit="By").of().set(4096)
    registry.add_source(lambda: [Metric("size", "summary", "Sizes.", points=[Point([], 12.5, [3])])])
    return registry.snapshot()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("", "text/plain; version=0.0.4"), ("*/*", "text/plain; version=0.0.4"), (OPENMETRICS, "application/openmetrics")],
)
def test_parser_reads_all_values(accept: str, content_type: str, snapshot: Snapshot) -> None:
    content, found_type = expose(snapshot, accept)
    assert found_type.startswith(content_type)
    parse: Any = openmetrics_families if "openmetrics" in content_type else text_families
    families = {family.name: family for family in parse(content.decode())}
    samples = {
        (sample.name, sample.labels.get("le", "")): (sample.value, sample.labels.get("error_type"))
        for family in families.values()
        for sample in family.samples
    }
    buckets = {bound: samples["http_server_request_duration_seconds_bucket", bound][0] for bound in ("0.005", "0.25")}
    assert buckets == {"0.005": 2, "0.25": 3}
    assert samples["http_server_request_duration_seconds_bucket", "+Inf"] == (4, STRANGE)
    assert samples["http_server_request_duration_seconds_count", ""][0] == 4
    assert samples["http_server_request_duration_seconds_sum", ""][0] == pytest.approx(20.206)
    assert samples["tinysvc_pool_jobs_total", ""][0] == 3
    assert samples["tinysvc_pool_queue_length", ""][0] == 7
    assert samples["tinysvc_worker_memory_bytes", ""][0] == 4096
    assert (samples["size_count", ""][0], samples["size_sum", ""][0]) == (3, 12.5)


def test_openmetrics_has_units_and_the_traces_of_exemplars(snapshot: Snapshot) -> None:
    content, _ = expose(snapshot, OPENMETRICS)
    parse: Any = openmetrics_families
    families = {family.name: family for family in parse(content.decode())}
    durations = families["http_server_request_duration_seconds"]
    assert durations.unit == "seconds"
    (exemplar,) = [sample.exemplar for sample in durations.samples if sample.exemplar]
    assert exemplar.labels == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert exemplar.value == 0.2


def test_author_names_are_exposed_as_they_are() -> None:
    assert exposed_name(Metric("shop_sold", "counter", "")) == "shop_sold"
    assert exposed_name(Metric("shop_seconds", "histogram", "", unit="s")) == "shop_seconds"


def test_large_snapshot_gives_the_lock_away(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tinysvc.telemetry.exposition.time.sleep", pauses.append)
    registry = Registry()
    family = registry.histogram("time", "Time.", ["route"])
    for number in range(100):
        family.of(str(number)).observe(1)
    content, _ = expose(registry.snapshot(), "")
    assert content.count(b"time_seconds_bucket") == 100 * 15
    assert len(pauses) == 100 * 17 // SLICE


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is missing")
def test_promtool_accepts_the_text(snapshot: Snapshot) -> None:
    content, _ = expose(snapshot, "")
    checked = subprocess.run(["promtool", "check", "metrics"], input=content, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_second_metric_of_a_name_is_left_out() -> None:
    """Prometheus would refuse the whole scrape."""
    ours = Metric("http.jobs", "counter", "Ours.", points=[Point([], 1)])
    others = [
        Metric("http_jobs", "gauge", "An author's.", points=[Point([], 2)]),
        Metric("http_jobs_total", "gauge", "An author's.", points=[Point([], 3)]),
        Metric("other", "gauge", "An author's.", points=[Point([], 4)]),
    ]
    text = expose([ours, *others], "")[0].decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["http_jobs_total 1.0", "other 4.0"]
