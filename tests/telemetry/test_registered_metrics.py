"""registered_metrics.py: a registry of prometheus_client as a snapshot."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from tinysvc.telemetry.registered_metrics import Registered, mode_of, registered_metrics


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    found = CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", found)
    return found


def by_name() -> dict[str, Registered]:
    return {each.metric.name: each for each in registered_metrics()}


def test_each_kind_of_metric(registry: CollectorRegistry) -> None:
    Counter("sold_total", "Sold.", ["shop", "kind"], registry=registry).labels("a", "b").inc(3)
    Gauge("level", "Level.", registry=registry, multiprocess_mode="livemin").set(4)
    Gauge("plain", "Plain.", registry=registry)
    Summary("cost", "Cost.", ["shop"], registry=registry).labels("a").observe(2.5)
    histogram = Histogram("size", "Size.", registry=registry, buckets=[1, 10])
    for value in (1, 2, 3, 11):
        histogram.observe(value)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    Enum("state", "State.", registry=registry, states=["up", "down"]).state("down")
    found = by_name()
    sold = found["sold"].metric
    assert (sold.kind, sold.labels, sold.points[0].labels, sold.points[0].value) == (
        "counter",
        ["shop", "kind"],
        ["a", "b"],
        3,
    )
    assert (found["level"].mode, found["level"].metric.points[0].value) == ("min", 4)
    assert found["plain"].mode is None
    cost = found["cost"].metric.points[0]
    assert (found["cost"].metric.labels, cost.value, cost.counts) == (["shop"], 2.5, [1])
    size = found["size"].metric
    assert (size.bounds, size.points[0].counts, size.points[0].value) == ([1, 10], [1, 2, 1], 17)
    build = found["build_info"].metric
    assert (build.kind, build.labels, build.points[0].labels, build.mode) == ("gauge", ["version"], ["1"], "max")
    assert [(p.labels, p.value) for p in found["state"].metric.points] == [(["up"], 0), (["down"], 1)]


def test_label_that_is_no_unicode_is_escaped(registry: CollectorRegistry) -> None:
    Counter("sold", "Sold.", ["shop"], registry=registry).labels("caf\xe9 \udcff").inc()
    Gauge("level", "Level.", ["shop"], registry=registry).labels("\udcff").inc()
    found = by_name()
    labels = [found[name].metric.points[0].labels for name in ("sold", "level")]
    assert labels == [["caf\xe9 \\udcff"], ["\\udcff"]]


def test_metric_without_series_is_there(registry: CollectorRegistry) -> None:
    Counter("sold", "Sold.", ["shop"], registry=registry)
    Gauge("level", "Level.", ["shop"], registry=registry)
    assert {name: each.metric.points for name, each in by_name().items()} == {"sold": [], "level": []}


def test_collector_of_the_author(registry: CollectorRegistry, caplog: pytest.LogCaptureFixture) -> None:
    class Good:
        def collect(self) -> Iterable[Any]:
            yield CounterMetricFamily("read", "Read.", 5)
            yield GaugeMetricFamily("open", "Open.", float("nan"))
            yield HistogramMetricFamily("wait", "Wait.", buckets=[("1", 2), ("+Inf", 3)], sum_value=9)

    class Broken:
        def collect(self) -> Iterable[Any]:
            raise OSError("no such\ndatabase")

    registry.register(Good())
    registry.register(Broken())
    with caplog.at_level(logging.ERROR, "tinysvc"):
        found = by_name()
        by_name()
    assert found["read"].metric.points[0].value == 5
    assert found["open"].metric.points == []
    assert found["wait"].metric.points[0].counts == [2, 1]
    (record,) = caplog.records
    assert record.message.endswith(r"Broken are left out: OSError: no such\ndatabase")


def test_collectors_of_prometheus_client_are_left_out() -> None:
    names = [each.metric.name for each in registered_metrics()]
    assert not [name for name in names if name.startswith(("python_", "process_"))]


def test_without_prometheus_client_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "prometheus_client")
    assert registered_metrics() == []


def test_modes_of_gauges() -> None:
    modes = ("all", "liveall", "", "sum", "livesum", "livemostrecent")
    assert list(map(mode_of, modes)) == [None, None, None, "sum", "sum", "mostrecent"]
