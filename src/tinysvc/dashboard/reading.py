"""The figures of one moment that the dashboard needs, taken out of a snapshot of all metrics.

Counters and histograms are totals since the start. history.py makes rates and quantiles of two readings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..client.rpc_statuses import STATUSES
from ..telemetry.snapshots import Metric, Point, Snapshot
from .details import ProcessDetails, decode_details, is_details


@dataclass(slots=True)
class Times:
    """The observations of a histogram, each bucket alone."""

    bounds: Sequence[float] = ()
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def add(self, metric: Metric, point: Point) -> None:
        """Add the observations of a series."""
        self.bounds = metric.bounds
        self.counts = (
            [one + other for one, other in zip(self.counts, point.counts, strict=True)] if self.counts else point.counts
        )
        self.sum += point.value

    @property
    def count(self) -> int:
        return sum(self.counts)

    def since(self, before: Times | None) -> Times:
        """What was observed after `before`."""
        if before is None or not before.counts:
            return self
        counts = [max(0, now - then) for now, then in zip(self.counts, before.counts, strict=True)]
        return Times(self.bounds, counts, max(0.0, self.sum - before.sum))

    def quantile(self, share: float) -> float | None:
        """The value that this share of the observations does not exceed, linear within a bucket. None without any."""
        total = self.count
        if not total:
            return None
        rank, below = share * total, 0
        for number, count in enumerate(self.counts):
            if count and below + count >= rank:
                if number == len(self.bounds):
                    return self.bounds[-1]
                low = self.bounds[number - 1] if number else 0.0
                return low + (self.bounds[number] - low) * (rank - below) / count
            below += count
        return self.bounds[-1]


@dataclass(slots=True)
class RouteTotals:
    """The requests of one method of a route."""

    times: Times = field(default_factory=Times)
    errors: int = 0
    """Responses with a status of 500 or more."""


@dataclass(slots=True)
class PoolTotals:
    """One pool."""

    waiting: int = 0
    states: dict[str, int] = field(default_factory=dict)
    """Workers by their state."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Jobs that have ended, by their outcome."""
    ends: dict[str, int] = field(default_factory=dict)
    """Workers that have ended, by the cause."""
    waited: Times = field(default_factory=Times)
    ran: Times = field(default_factory=Times)


@dataclass(slots=True)
class ServiceTotals:
    """The calls to another service."""

    times: Times = field(default_factory=Times)
    errors: int = 0
    retries: int = 0
    replicas: dict[str, bool] = field(default_factory=dict)
    """Whether each known replica is avoided."""


@dataclass(slots=True)
class VariantTotals:
    """The requests of one variant of a route that tries a candidate."""

    times: Times = field(default_factory=Times)
    errors: int = 0
    """Requests with another outcome than "ok"."""

    def since(self, before: VariantTotals) -> VariantTotals:
        """Those after `before`."""
        return VariantTotals(self.times.since(before.times), max(0, self.errors - before.errors))


@dataclass(slots=True)
class CandidateTotals:
    """A candidate, beside the version that serves."""

    route: str
    artifact: str
    variants: dict[str, VariantTotals] = field(default_factory=dict)
    """"served" and "candidate"."""
    differences: Times = field(default_factory=Times)
    skipped: int = 0


@dataclass(slots=True)
class Reading:
    """All figures of one moment."""

    time: float
    """Unix time."""
    routes: dict[str, RouteTotals] = field(default_factory=dict)
    """By method and route, as in "GET /items/{name}", and for gRPC as in "RPC inference.Inference/Predict"."""
    pools: dict[str, PoolTotals] = field(default_factory=dict)
    services: dict[str, ServiceTotals] = field(default_factory=dict)
    candidates: dict[str, CandidateTotals] = field(default_factory=dict)
    """By route and artifact, as in "/predict churn@candidate"."""
    durable: dict[str, dict[str, int]] = field(default_factory=dict)
    """Durable jobs by route and state."""
    lag: Times = field(default_factory=Times)
    values: dict[str, float] = field(default_factory=dict)
    """Metrics without labels, by name."""
    processes: list[ProcessDetails] = field(default_factory=list)


def reading_of(snapshot: Snapshot, time: float) -> Reading:
    """The reading of a snapshot that was made at this Unix time."""
    reading = Reading(time)
    for metric in snapshot:
        if is_details(metric):
            reading.processes = decode_details(metric)
        elif metric.name in _READERS:
            _READERS[metric.name](reading, metric)
        elif not metric.labels and len(metric.points) == 1:
            reading.values[metric.name] = metric.points[0].value
    return reading


def _labelled(metric: Metric) -> Iterator[tuple[dict[str, str], Point]]:
    for point in metric.points:
        yield dict(zip(metric.labels, point.labels, strict=True)), point


def _read_requests(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        route = labels["http.route"]
        name = f"{labels['http.request.method']} {route}" if route else "no route"
        totals = reading.routes.setdefault(name, RouteTotals())
        totals.times.add(metric, point)
        if labels["http.response.status_code"] >= "5":
            totals.errors += sum(point.counts)


def _read_rpcs(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        totals = reading.routes.setdefault(f"RPC {labels['rpc.method']}", RouteTotals())
        totals.times.add(metric, point)
        if labels["error.type"]:  # an error of the server: see grpc/rpc_metrics.py
            totals.errors += sum(point.counts)


def _read_active(reading: Reading, metric: Metric) -> None:
    reading.values[metric.name] = sum(point.value for point in metric.points)


def _pool(reading: Reading, labels: dict[str, str]) -> PoolTotals:
    return reading.pools.setdefault(labels["pool"], PoolTotals())


def _read_workers(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _pool(reading, labels).states[labels["state"]] = int(point.value)


def _read_waiting(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _pool(reading, labels).waiting = int(point.value)


def _read_outcomes(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _pool(reading, labels).outcomes[labels["outcome"]] = int(point.value)


def _read_ends(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _pool(reading, labels).ends[labels["cause"]] = int(point.value)


def _read_waited(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _pool(reading, labels).waited.add(metric, point)


def _read_ran(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _pool(reading, labels).ran.add(metric, point)


def _service(reading: Reading, labels: dict[str, str]) -> ServiceTotals:
    return reading.services.setdefault(labels["service"], ServiceTotals())


def _read_calls(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        totals = _service(reading, labels)
        totals.times.add(metric, point)
        if labels["error.type"] and not labels["http.response.status_code"].startswith("4"):
            totals.errors += sum(point.counts)


def _read_rpc_calls(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        totals = _service(reading, labels)
        totals.times.add(metric, point)
        if labels["error.type"] and STATUSES.get(labels["rpc.status_code"], 500) >= 500:  # as over HTTP: no 4xx
            totals.errors += sum(point.counts)


def _read_retries(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _service(reading, labels).retries += int(point.value)


def _read_breakers(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _service(reading, labels).replicas[labels["replica"]] = point.value > 0


def _candidate(reading: Reading, labels: dict[str, str]) -> CandidateTotals:
    route, artifact = labels["http.route"], labels["artifact"]
    return reading.candidates.setdefault(f"{route} {artifact}", CandidateTotals(route, artifact))


def _read_candidate_requests(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        if labels["outcome"] != "ok":
            totals = _candidate(reading, labels)
            totals.variants.setdefault(labels["variant"], VariantTotals()).errors += int(point.value)


def _read_candidate_times(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        totals = _candidate(reading, labels)
        totals.variants.setdefault(labels["variant"], VariantTotals()).times.add(metric, point)


def _read_differences(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _candidate(reading, labels).differences.add(metric, point)


def _read_skipped(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        _candidate(reading, labels).skipped = int(point.value)


def _read_durable(reading: Reading, metric: Metric) -> None:
    for labels, point in _labelled(metric):
        reading.durable.setdefault(labels["http.route"], {})[labels["state"]] = int(point.value)


def _read_lag(reading: Reading, metric: Metric) -> None:
    for point in metric.points:
        reading.lag.add(metric, point)


_READERS = {
    "http.server.request.duration": _read_requests,
    "rpc.server.call.duration": _read_rpcs,
    "http.server.active_requests": _read_active,
    "tinysvc.pool.workers": _read_workers,
    "tinysvc.pool.queue.length": _read_waiting,
    "tinysvc.pool.jobs": _read_outcomes,
    "tinysvc.pool.worker.ends": _read_ends,
    "tinysvc.pool.queue.duration": _read_waited,
    "tinysvc.pool.run.duration": _read_ran,
    "http.client.request.duration": _read_calls,
    "rpc.client.call.duration": _read_rpc_calls,
    "tinysvc.call.retries": _read_retries,
    "tinysvc.call.breaker_open": _read_breakers,
    "tinysvc.candidate.requests": _read_candidate_requests,
    "tinysvc.candidate.duration": _read_candidate_times,
    "tinysvc.candidate.difference": _read_differences,
    "tinysvc.candidate.skipped": _read_skipped,
    "tinysvc.jobs": _read_durable,
    "tinysvc.event_loop.lag": _read_lag,
}
