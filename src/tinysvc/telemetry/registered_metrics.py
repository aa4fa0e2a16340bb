"""The metrics in prometheus_client's registry of this process, as a snapshot.

Any collector will do, also one that the author has written: only its samples are read. prometheus_client's collectors
of process, platform and garbage collector are left out: with several server processes they cannot be added up, and
`process.*` is among our own metrics.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable
from math import inf, isfinite
from typing import Any, NamedTuple

from ..core.tracebacks import one_line
from .snapshots import Exemplar, Kind, Metric, Mode, Point
from .value_file import plain_text

log = logging.getLogger("tinysvc")

_MODES: dict[str, Mode] = {"min": "min", "max": "max", "sum": "sum", "mostrecent": "mostrecent"}
_KINDS: dict[str, Kind] = {"counter": "counter", "histogram": "histogram", "summary": "summary"}

SLICE, PAUSE = 50, 0.00005
"""After so many series, a thread that reads metrics sleeps for so many seconds: the event loop takes the interpreter's
lock. Otherwise the loop would wait for it for 5 ms, again and again."""

_reported: set[str] = set()


class Registered(NamedTuple):
    """A metric, and the mode of a gauge; None: it has a series for each process."""

    metric: Metric
    mode: Mode | None


def mode_of(multiprocess_mode: str) -> Mode | None:
    """The mode of a gauge; None: it has a series for each process."""
    return _MODES.get(multiprocess_mode.removeprefix("live"))


def registered_metrics() -> list[Registered]:
    """All metrics in prometheus_client.REGISTRY; none if nothing has imported it. A broken collector is logged once."""
    module = sys.modules.get("prometheus_client")
    if module is None:
        return []
    standard = (module.ProcessCollector, module.PlatformCollector, module.GCCollector)
    found: list[Registered] = []
    for collector in list(module.REGISTRY._collector_to_names):
        if not isinstance(collector, standard):
            time.sleep(PAUSE)
            try:
                for family in collector.collect():
                    found += _metrics(family, getattr(collector, "_multiprocess_mode", ""))
            except Exception as error:
                _report(collector, error)
    return found


def _report(collector: object, error: Exception) -> None:
    name = type(collector).__qualname__
    if name not in _reported:
        _reported.add(name)
        log.error("the metrics of %s are left out: %s", name, one_line(f"{type(error).__name__}: {error}"))


def _metrics(family: Any, multiprocess_mode: str) -> list[Registered]:
    """What we make of a family: of a kind that we do not know, a gauge for each name of its samples."""
    kind = _KINDS.get(family.type)
    if kind is not None:
        return [Registered(_sum_of_samples(family, kind), "sum")]
    mode: Mode | None = "max"  # of an Info or Enum: 1, or 0 and 1
    if family.type in ("gauge", "unknown"):
        mode = mode_of(multiprocess_mode)
    gauges = []
    for name in dict.fromkeys(sample.name for sample in family.samples) or [family.name]:
        samples = [sample for sample in family.samples if sample.name == name]
        labels = _label_names(samples)
        points = [Point(_values(s, labels), s.value) for s in samples if isfinite(s.value)]
        gauge = Metric(name, "gauge", family.documentation, "", labels, [], mode or "mostrecent", points)
        gauges.append(Registered(gauge, mode))
    return gauges


def _label_names(samples: Iterable[Any], without: str = "") -> list[str]:
    return [name for name in dict.fromkeys(name for sample in samples for name in sample.labels) if name != without]


def _values(sample: Any, labels: Iterable[str]) -> list[str]:
    """The values of the labels."""
    return [plain_text(sample.labels.get(label, "")) for label in labels]


def _sum_of_samples(family: Any, kind: Kind) -> Metric:
    """A counter, histogram or summary."""
    labels = _label_names(family.samples, "le" if kind == "histogram" else "quantile" if kind == "summary" else "")
    found: dict[tuple[str, ...], dict[Any, Any]] = {}
    for number, sample in enumerate(family.samples, 1):
        if not number % SLICE:
            time.sleep(PAUSE)
        values = found.setdefault(tuple(_values(sample, labels)), {})
        suffix = sample.name.removeprefix(family.name)
        values[float(sample.labels["le"]) if suffix == "_bucket" else suffix] = sample
    metric = Metric(family.name, kind, family.documentation, "", labels)
    for names, values in found.items():
        if kind == "counter":
            total = values.get("_total") or values.get("")
            if total is not None:
                metric.points.append(Point(list(names), total.value))
        elif "_count" in values:
            metric.points.append(_observations(metric, list(names), values))
    return metric


def _observations(metric: Metric, labels: list[str], values: dict[Any, Any]) -> Point:
    """The point of a histogram or summary; the buckets of its samples contain the smaller ones."""
    total = values["_sum"].value if "_sum" in values else 0.0
    if metric.kind == "summary":
        return Point(labels, total, [int(values["_count"].value)])
    bounds = sorted(bound for bound in values if isinstance(bound, float))
    if not metric.points:
        metric.bounds = [bound for bound in bounds if bound != inf]
    counts, exemplars, below = [], [], 0
    for number, bound in enumerate(bounds):
        sample = values[bound]
        counts.append(int(sample.value) - below)
        below = int(sample.value)
        if sample.exemplar is not None and (trace_id := sample.exemplar.labels.get("trace_id")):
            found = sample.exemplar
            exemplars.append(Exemplar(number, trace_id, found.value, found.timestamp or 0.0))
    return Point(labels, total, counts, exemplars)
