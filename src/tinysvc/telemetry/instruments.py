"""Instruments: counters, gauges and histograms as plain Python, and the registry of one process.

A family is a metric with its series, one for each combination of label values; code that counts often keeps its series:

    duration = registry.histogram("http.server.request.duration", "Time from ...", ["route"], unit="s")
    series = duration.of("/items/{name}")     once
    series.observe(0.012)                     for each request

All this runs on the event loop, so it needs no lock. Values that exist anyway, such as the length of a queue, are not
counted here: a source reads them when a snapshot is made.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from .snapshots import Exemplar, Kind, Metric, Mode, Point, Snapshot

MAX_SERIES = 2000
"""Series of one metric; an application with 100 routes, 4 methods and 5 statuses fits. Further label values share one
series, whose labels are all OTHER."""

OTHER = "_OTHER"
"""The value of a label beyond a limit (as OpenTelemetry's error.type and http.request.method)."""

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds (OpenTelemetry's semantic conventions for http.server.request.duration)."""

EXEMPLAR_INTERVAL = 1.0
"""Seconds in which a bucket of a series takes one exemplar. More often, a scrape would not see the others."""


_NO_EXEMPLARS: list[Exemplar] = []


class Series(Protocol):
    """The values of one combination of labels."""

    def point(self, labels: list[str]) -> Point: ...


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount

    def point(self, labels: list[str]) -> Point:
        return Point(labels, self.value)


class Gauge:
    """A number that is set, or goes up and down."""

    __slots__ = ("time", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.time = 0.0

    def set(self, value: float) -> None:
        self.value, self.time = value, time.time()

    def add(self, amount: float = 1.0) -> None:
        self.value += amount

    def point(self, labels: list[str]) -> Point:
        return Point(labels, self.value, time=self.time)


class Histogram:
    """Observations by the bucket that they fall into. A bound belongs to its bucket."""

    __slots__ = ("bounds", "counts", "due", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.due = [0.0] * len(self.counts)  # when each bucket may take its next exemplar, by a clock of the caller
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> int:
        """Count the value. Returns the number of its bucket."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket

    def add_exemplar(self, bucket: int, trace_id: str, value: float) -> None:
        """Name a trace for an observation in this bucket; the newest one is kept."""
        self.exemplars[bucket] = Exemplar(bucket, trace_id, value, time.time())

    def point(self, labels: list[str]) -> Point:
        return Point(
            labels, self.sum, self.counts.copy(), list(self.exemplars.values()) if self.exemplars else _NO_EXEMPLARS
        )


S = TypeVar("S", bound=Series)


class Family(Generic[S]):
    """A metric and its series."""

    def __init__(
        self,
        make: Callable[[], S],
        kind: Kind,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        unit: str = "",
        bounds: Sequence[float] = (),
        mode: Mode = "sum",
    ) -> None:
        self.metric = Metric(name, kind, text, unit, list(labels), list(bounds), mode)
        self._make = make
        self._series: dict[tuple[str, ...], S] = {}
        self._labels: list[list[str]] = []  # of the series, in their order

    def of(self, *values: str) -> S:
        """The series of these label values; a new one, unless there are MAX_SERIES."""
        series = self._series.get(values)
        if series is None:
            if len(values) != len(self.metric.labels):
                raise ValueError(f"{self.metric.name} has the labels {self.metric.labels}, not {len(values)} values")
            if len(self._series) >= MAX_SERIES:
                values = (OTHER,) * len(values)
            if (series := self._series.get(values)) is None:
                series = self._series[values] = self._make()
                self._labels.append(list(values))
        return series

    def snapshot(self) -> Metric:
        """A copy of all values. Its lists of labels are shared by all snapshots: each new one is work for the garbage
        collector, which would stop the loop.
        """
        about = self.metric
        points = [series.point(labels) for labels, series in zip(self._labels, self._series.values(), strict=True)]
        return Metric(about.name, about.kind, about.text, about.unit, about.labels, about.bounds, about.mode, points)


class Registry:
    """All metrics of one process."""

    def __init__(self) -> None:
        self._families: dict[str, Family[Counter] | Family[Gauge] | Family[Histogram]] = {}
        self._sources: list[Callable[[], Iterable[Metric]]] = []
        self._thread_sources: list[Callable[[], Iterable[Metric]]] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = (), *, unit: str = "") -> Family[Counter]:
        family = Family(Counter, "counter", name, text, labels, unit=unit)
        self._families[name] = family
        return family

    def gauge(
        self, name: str, text: str, labels: Sequence[str] = (), *, unit: str = "", mode: Mode = "sum"
    ) -> Family[Gauge]:
        family = Family(Gauge, "gauge", name, text, labels, unit=unit, mode=mode)
        self._families[name] = family
        return family

    def histogram(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        unit: str = "s",
        bounds: Sequence[float] = DURATIONS,
    ) -> Family[Histogram]:
        bounds = tuple(bounds)
        family = Family(lambda: Histogram(bounds), "histogram", name, text, labels, unit=unit, bounds=bounds)
        self._families[name] = family
        return family

    def add_source(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Call `source` for each snapshot: it returns further metrics, from values that exist anyway."""
        self._sources.append(source)

    def add_thread_source(self, source: Callable[[], Iterable[Metric]]) -> None:
        """As `add_source`, for a source that may take long: `complete` calls it, in the thread of the scrape."""
        self._thread_sources.append(source)

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with the metrics of the slow sources. In a thread."""
        return [*snapshot, *(metric for source in self._thread_sources for metric in source())]

    def snapshot(self) -> Snapshot:
        """A copy of all values, without the slow sources. On the event loop; about a microsecond a series."""
        found = [family.snapshot() for family in self._families.values()]
        for source in self._sources:
            found += source()
        return found


def metric_of(
    kind: Kind,
    name: str,
    text: str,
    values: Iterable[tuple[Sequence[str], float]],
    labels: Sequence[str] = (),
    *,
    unit: str = "",
    mode: Mode = "sum",
) -> Metric:
    """A metric of a source: a counter or gauge with these values by their labels."""
    return Metric(
        name, kind, text, unit, list(labels), [], mode, [Point(list(found), value) for found, value in values]
    )
