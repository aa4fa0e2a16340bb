"""A snapshot as text for Prometheus: text format 0.0.4, or OpenMetrics 1.0, written by prometheus-client.

It runs in a thread beside the event loop. Python would let the loop wait for 5 ms for the interpreter's lock, again and
again, so the thread gives the lock away itself after each SLICE samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Metric as Exposed
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as ExposedExemplar
from prometheus_client.samples import Sample

from .snapshots import INTERNAL, Exemplar, Kind, Metric, Point, Snapshot

SLICE = 20
"""Samples that are written in one go: about 0.2 ms."""

YIELD = 0.0002
"""Seconds that the thread sleeps then: enough for the loop's thread to wake up and take the lock."""

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": (),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
_UNITS = {"s": "seconds", "By": "bytes", "": ""}


def expose(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The text, and its content type.

    Args:
        snapshot: The metrics.
        accept: The header `Accept` of the request, by which Prometheus chooses the format.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_SnapshotCollector(snapshot)), content_type


def exposed_name(metric: Metric) -> str:
    """The metric's name in Prometheus: dots become underscores, and the unit is appended. Without `_total`."""
    name = metric.name.replace(".", "_").replace("-", "_")
    unit = _UNITS[metric.unit]
    return name if not unit or name.endswith("_" + unit) else f"{name}_{unit}"


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Exposed]:
        taken: set[str] = set()
        for metric in self._snapshot:
            name = exposed_name(metric)
            names = {name, *(name + suffix for suffix in _SUFFIXES[metric.kind])}
            if metric.name.startswith(INTERNAL) or names & taken:  # an author's metric has one of our names
                continue
            taken |= names
            exposed = Exposed(name, metric.text, metric.kind, _UNITS[metric.unit])
            exposed.samples = _Samples(_samples(exposed.name, metric))  # type: ignore[assignment]
            yield exposed


class _Samples:
    """The samples of a metric, made while they are written."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[Sample]:
        for number, sample in enumerate(self._samples, 1):
            if not number % SLICE:
                time.sleep(YIELD)
            yield sample


def _samples(name: str, metric: Metric) -> Iterator[Sample]:
    names = [label.replace(".", "_") for label in metric.labels]
    for point in metric.points:
        labels = dict(zip(names, point.labels, strict=True))
        if metric.kind == "counter":
            yield Sample(f"{name}_total", labels, point.value)
        elif metric.kind == "gauge":
            yield Sample(name, labels, point.value)
        else:
            if metric.kind == "histogram":
                yield from _buckets(name, labels, metric, point)
            yield Sample(f"{name}_count", labels, sum(point.counts))
            yield Sample(f"{name}_sum", labels, point.value)


def _buckets(name: str, labels: Mapping[str, str], metric: Metric, point: Point) -> Iterator[Sample]:
    exemplars = {each.bucket: each for each in point.exemplars}
    total = 0
    for number, count in enumerate(point.counts):
        total += count
        bound = str(float(metric.bounds[number])) if number < len(metric.bounds) else "+Inf"
        exemplar = exemplars.get(number)
        yield Sample(f"{name}_bucket", {**labels, "le": bound}, total, None, _exposed(exemplar))


def _exposed(exemplar: Exemplar | None) -> ExposedExemplar | None:
    if exemplar is None:
        return None
    return ExposedExemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.time)
