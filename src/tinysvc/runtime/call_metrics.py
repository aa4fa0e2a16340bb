"""Counts calls to other services: their durations, attempts, failures, and the replicas that are avoided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..telemetry.instruments import Registry, metric_of
from ..telemetry.snapshots import Metric

if TYPE_CHECKING:
    from ..client.services import CallEnd, Services


class CallMetrics:
    """The counts of all calls that leave this process. A call of a handler in this process is none."""

    def __init__(self, registry: Registry, services: Services) -> None:
        self._services = services
        self._durations = registry.histogram(
            "http.client.request.duration",
            "Time of a call to another service, with all its attempts, to the head of the response.",
            ["service", "http.request.method", "http.response.status_code", "error.type"],
        )
        self._retries = registry.counter(
            "tinysvc.call.retries", "Requests of calls beyond the first one of each.", ["service"]
        )
        services.on_end = self._count
        registry.add_source(self._now)

    def _count(self, end: CallEnd) -> None:
        if isinstance(end.result, BaseException):
            status, error = "", type(end.result).__name__
        else:
            status = str(end.result.status)
            error = status if end.result.status >= 400 else ""
        self._durations.of(end.service, end.method, status, error).observe(end.seconds)
        self._retries.of(end.service).add(max(0, end.attempts - 1))

    def _now(self) -> Iterable[Metric]:
        found = [([service, replica.name], replica) for service, replica in self._services.replicas()]
        avoided = [(labels, float(replica.breaker.pauses > 0)) for labels, replica in found]
        in_flight = [(labels, replica.in_flight) for labels, replica in found]
        labels = ["service", "replica"]
        return (
            metric_of(
                "gauge",
                "tinysvc.call.breaker_open",
                "1 while a replica is avoided after failures.",
                avoided,
                labels,
                mode="max",
            ),
            metric_of("gauge", "tinysvc.call.in_flight", "Calls whose response has not ended.", in_flight, labels),
        )
