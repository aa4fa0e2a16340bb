"""snapshots.py: values of several processes add up, and survive the way between them."""

from __future__ import annotations

import math

import pytest

from tinysvc.telemetry.snapshots import (
    Exemplar,
    Metric,
    Mode,
    Point,
    decode_snapshot,
    encode_snapshot,
    merge,
    without_gauges,
)


def counter(*values: tuple[str, float], name: str = "sold") -> Metric:
    return Metric(name, "counter", "Things sold.", "", ["shop"], points=[Point([shop], n) for shop, n in values])


def gauge(mode: Mode, value: float, time: float = 0.0) -> Metric:
    return Metric("level", "gauge", "A level.", mode=mode, points=[Point([], value, time=time)])


def histogram(counts: list[int], total: float, *exemplars: Exemplar) -> Metric:
    point = Point([], total, counts, list(exemplars))
    return Metric("time", "histogram", "A time.", "s", bounds=[0.1, 1.0], points=[point])


def test_snapshot_survives_encoding_on_one_line() -> None:
    snapshot = [counter(("a\nb", 1.5)), histogram([1, 0, 2], math.inf, Exemplar(2, "ab", 2.0, 12.5)), gauge("max", 3)]
    data = encode_snapshot(snapshot)
    assert not set(b" ,\n") & set(data)
    assert decode_snapshot(data) == snapshot


def test_counters_of_processes_add_up_by_their_labels() -> None:
    one, other = [counter(("x", 1), ("y", 2))], [counter(("y", 3), ("z", 4))]
    (merged,) = merge([one, other])
    assert {point.labels[0]: point.value for point in merged.points} == {"x": 1, "y": 5, "z": 4}
    assert one == [counter(("x", 1), ("y", 2))]  # unchanged


def test_histograms_add_up_and_keep_the_newest_exemplar_of_a_bucket() -> None:
    old, new, other = Exemplar(2, "old", 5, 1), Exemplar(2, "new", 6, 2), Exemplar(0, "low", 0, 1)
    (merged,) = merge([[histogram([1, 0, 2], 3.5, new)], [histogram([0, 1, 1], 2.5, old, other)]])
    (point,) = merged.points
    assert (point.counts, point.value) == ([1, 1, 3], 6.0)
    assert sorted(point.exemplars, key=lambda each: each.bucket) == [other, new]


@pytest.mark.parametrize(("mode", "expected"), [("sum", 7), ("max", 5), ("min", 2), ("mostrecent", 2)])
def test_gauge_merges_by_its_mode(mode: Mode, expected: float) -> None:
    (merged,) = merge([[gauge(mode, 2, time=9)], [gauge(mode, 5, time=8)]])
    assert merged.points[0].value == expected


def test_metric_with_other_labels_is_not_added() -> None:
    strange = Metric("sold", "counter", "", labels=["city"], points=[Point(["x"], 100)])
    (merged,) = merge([[counter(("x", 1))], [strange]])
    assert [point.value for point in merged.points] == [1]


def test_ended_process_keeps_counters_and_loses_gauges() -> None:
    assert without_gauges([counter(("x", 1)), gauge("sum", 2), histogram([1, 0, 0], 0.1)]) == [
        counter(("x", 1)),
        histogram([1, 0, 0], 0.1),
    ]
