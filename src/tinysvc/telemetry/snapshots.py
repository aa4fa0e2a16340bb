"""Snapshots of metrics: plain values that processes send to each other, and that add up.

A counter, histogram or summary of a sum of processes is the sum of theirs. A gauge has a mode, because the sum of two
start times means nothing. A dead process keeps its counters and loses its gauges: `without_gauges`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram", "summary"]
"""A summary has a sum and a count, and no buckets."""

Mode = Literal["sum", "max", "min", "mostrecent"]
"""How the values of a gauge from several processes become one."""


class Exemplar(msgspec.Struct, array_like=True, gc=False):
    """One observation of a histogram, with the trace that it belongs to."""

    bucket: int
    trace_id: str
    value: float
    time: float
    """Unix time, in seconds."""


class Point(msgspec.Struct, array_like=True, gc=False):
    """The values of one series."""

    labels: list[str]
    """The values of the metric's labels, in their order."""
    value: float = 0.0
    """Of a counter or gauge; of a histogram or summary the sum of all observations."""
    counts: list[int] = []
    """Of a histogram: observations in each bucket alone, the last one beyond all bounds. Of a summary: their number."""
    exemplars: list[Exemplar] = []
    time: float = 0.0
    """Unix time at which a gauge with the mode "mostrecent" was set."""


class Metric(msgspec.Struct):
    """One metric with all its series."""

    name: str
    """As in OpenTelemetry, "http.server.request.duration"; for an author's metric its own name."""
    kind: Kind
    text: str
    """One sentence: the meaning of a value."""
    unit: str = ""
    """As in OpenTelemetry: "s", "By", or "" for a number of things."""
    labels: list[str] = []
    bounds: list[float] = []
    """The upper bounds of the buckets of a histogram, without infinity."""
    mode: Mode = "sum"
    points: list[Point] = []


INTERNAL = "tinysvc.dashboard."
"""How the names of metrics begin that are for the dashboard alone: texts, not numbers."""

Snapshot = list[Metric]
"""All metrics of a process, or of several."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Snapshot] = msgspec.msgpack.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as text without spaces, commas and line ends. Not JSON: it has no infinity, and a sum may be one."""
    return b64encode(_encoder.encode(snapshot))


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot of `encode_snapshot`. ValueError if it is none."""
    return _decoder.decode(b64decode(data))


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot with the sums of all. The snapshots themselves are not changed.

    Two metrics with one name but other labels, bounds or kinds cannot be added: the first one is kept.
    """
    merged: dict[str, tuple[Metric, dict[tuple[str, ...], Point]]] = {}
    for snapshot in snapshots:
        for metric in snapshot:
            if metric.name not in merged:
                merged[metric.name] = msgspec.structs.replace(metric, points=[]), {}
            total, points = merged[metric.name]
            if (total.kind, total.labels, total.bounds) != (metric.kind, metric.labels, metric.bounds):
                continue
            for point in metric.points:
                labels = tuple(point.labels)
                points[labels] = _sum(points[labels], point, metric) if labels in points else point
    for metric, points in merged.values():
        metric.points = list(points.values())
    return [metric for metric, _ in merged.values()]


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """What remains of a process that has ended."""
    return [metric for metric in snapshot if metric.kind != "gauge"]


def _sum(one: Point, other: Point, metric: Metric) -> Point:
    if metric.kind != "gauge" or metric.mode == "sum":
        counts = [a + b for a, b in zip(one.counts, other.counts, strict=True)]
        return Point(one.labels, one.value + other.value, counts, _newest(one.exemplars + other.exemplars))
    if metric.mode == "mostrecent":
        return max(one, other, key=lambda point: point.time)
    choose = max if metric.mode == "max" else min
    return choose(one, other, key=lambda point: point.value)


def _newest(exemplars: list[Exemplar]) -> list[Exemplar]:
    """Of each bucket the newest exemplar."""
    return list({each.bucket: each for each in sorted(exemplars, key=lambda each: each.time)}.values())
