"""instruments.py: what the instruments of one process count."""

from __future__ import annotations

import time

import pytest

from tinysvc.telemetry import instruments
from tinysvc.telemetry.instruments import DURATIONS, OTHER, Registry, metric_of
from tinysvc.telemetry.snapshots import Metric, Snapshot


def named(snapshot: Snapshot, name: str) -> Metric:
    (found,) = [metric for metric in snapshot if metric.name == name]
    return found


def test_counter_and_gauge_keep_values_by_label() -> None:
    registry = Registry()
    sold, level = registry.counter("sold", "Sold.", ["shop"]), registry.gauge("level", "Level.", mode="max")
    sold.of("a").add()
    sold.of("a").add(2)
    sold.of("b").add()
    before = time.time()
    level.of().set(5)
    level.of().add(-1)
    snapshot = registry.snapshot()
    assert [(point.labels, point.value) for point in named(snapshot, "sold").points] == [(["a"], 3), (["b"], 1)]
    found = named(snapshot, "level")
    assert (found.mode, found.points[0].value) == ("max", 4)
    assert found.points[0].time >= before


def test_histogram_counts_a_bound_in_its_own_bucket() -> None:
    registry = Registry()
    series = registry.histogram("time", "Time.", bounds=[0.1, 1]).of()
    assert [series.observe(value) for value in (0.1, 0.11, 1, 1.01, 50)] == [0, 1, 1, 2, 2]
    series.add_exemplar(2, "ab", 50)
    (point,) = named(registry.snapshot(), "time").points
    assert point.counts == [1, 2, 2]
    assert point.value == pytest.approx(52.22)
    assert [(each.bucket, each.trace_id, each.value) for each in point.exemplars] == [(2, "ab", 50)]


def test_snapshot_is_a_copy() -> None:
    registry = Registry()
    series = registry.histogram("time", "Time.").of()
    before = registry.snapshot()
    series.observe(1)
    assert sum(named(before, "time").points[0].counts) == 0
    assert named(before, "time").bounds == list(DURATIONS)


def test_series_beyond_the_limit_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "MAX_SERIES", 3)
    registry = Registry()
    family = registry.counter("sold", "Sold.", ["shop"])
    for number in range(10):
        family.of(str(number)).add()
    points = named(registry.snapshot(), "sold").points
    assert [(point.labels, point.value) for point in points] == [(["0"], 1), (["1"], 1), (["2"], 1), ([OTHER], 7)]


def test_wrong_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"sold has the labels \['shop'\], not 2 values"):
        Registry().counter("sold", "Sold.", ["shop"]).of("a", "b")


def test_source_is_asked_for_each_snapshot() -> None:
    registry, waiting = Registry(), [3]
    registry.add_source(lambda: [metric_of("gauge", "queue", "Jobs.", [(["default"], waiting[0])], ["pool"])])
    assert named(registry.snapshot(), "queue").points[0].value == 3
    waiting[0] = 4
    assert named(registry.snapshot(), "queue").points[0].value == 4
