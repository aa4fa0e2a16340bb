"""worker_values.py: prometheus_client's values, as a forkserver and its workers replace them."""

from __future__ import annotations

import os
import sys
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tinysvc.telemetry import worker_values
from tinysvc.telemetry.instruments import OTHER
from tinysvc.telemetry.value_file import SIZE, ValueReader
from tinysvc.telemetry.worker_values import WorkerValues, share_values, value_class


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> WorkerValues:
    """Of a forkserver: metrics that are made now have these values."""
    found = WorkerValues()
    monkeypatch.setattr(prometheus_client.values, "ValueClass", value_class(found))
    return found


def become_worker(values: WorkerValues) -> ValueReader:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, SIZE)
    reader = ValueReader(descriptor)
    values.attach(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    return reader


def numbers(reader: ValueReader) -> dict[tuple[str, ...], list[float]]:
    return {(each.name, *each.values): found for each, found in list(reader.image().values())}


def test_only_changes_after_the_fork_are_shared(values: WorkerValues) -> None:
    counter = Counter("sold", "Sold.", ["shop"], registry=CollectorRegistry())
    counter.labels("a").inc(5)
    counter.labels("b").inc(5)
    reader = become_worker(values)
    assert numbers(reader) == {}
    counter.labels("a").inc()
    assert numbers(reader) == {("sold", "a"): [1]}
    (sample, *_) = next(iter(counter.labels("a").collect())).samples
    assert sample.value == 6  # the worker's own view


def test_label_that_is_no_unicode_does_not_fail_the_job(values: WorkerValues) -> None:
    counter = Counter("sold", "Sold.", ["shop"], registry=CollectorRegistry())
    reader = become_worker(values)
    counter.labels("\udcff").inc()
    assert numbers(reader) == {("sold", "\\udcff"): [1]}


def test_gauge_has_its_value_and_the_time(values: WorkerValues) -> None:
    gauge = Gauge("level", "Level.", registry=CollectorRegistry(), multiprocess_mode="mostrecent")
    reader = become_worker(values)
    gauge.set(4)
    ((definition, (value, when)),) = list(reader.image().values())
    assert (definition.mode, value, when > 0) == ("mostrecent", 4, True)


def test_histograms_of_one_name_and_other_bounds_do_no_harm(values: WorkerValues) -> None:
    one = Histogram("size", "Size.", buckets=[1, 10], registry=CollectorRegistry())
    reader = become_worker(values)
    one.observe(5)
    other = Histogram("size", "Size.", buckets=[3, 30, 300], registry=CollectorRegistry())
    for value in (2, 20, 200, 2000):
        other.observe(value)
    assert sum(numbers(reader)[("size",)][1:]) == 5


def test_series_beyond_the_limit_are_counted_together(values: WorkerValues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_values, "MAX_SERIES", 2)
    counter = Counter("sold", "Sold.", ["shop"], registry=CollectorRegistry())
    reader = become_worker(values)
    for _ in range(2):
        for shop in "abcd":
            counter.labels(shop).inc()
    assert numbers(reader) == {("sold", "a"): [2], ("sold", "b"): [2], ("sold", OTHER): [4]}


def test_without_prometheus_client_a_worker_only_closes_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    attach: Any = share_values()
    descriptor = os.memfd_create("test")
    attach(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_forkserver_replaces_the_class_of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    attach: Any = share_values()
    values = attach.__self__
    counter = Counter("sold", "Sold.", registry=CollectorRegistry())
    reader = become_worker(values)
    counter.inc(3, exemplar={"trace_id": "a"})
    assert numbers(reader) == {("sold",): [3]}
