"""Counts calls to other services: their durations, attempts, failures, and the replicas that are avoided."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING

from ..core.call_errors import CallFailed, CallTimeout, CallUnavailable
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
        self._rpc_durations = registry.histogram(
            "rpc.client.call.duration",
            "Time of a call over gRPC to another service, with all its attempts, to its reply, of a stream to its end.",
            ["service", "rpc.system.name", "rpc.method", "rpc.status_code", "error.type"],
        )
        self._over_rpc = {name for name, addresses in services.addresses.items() if addresses[0].is_rpc}
        self._retries = registry.counter(
            "tinysvc.call.retries", "Requests of calls beyond the first one of each.", ["service"]
        )
        services.on_end = self._count
        registry.add_source(self._now)

    def _count(self, end: CallEnd) -> None:
        self._retries.of(end.service).add(max(0, end.attempts - 1))
        if end.service in self._over_rpc:
            self._count_rpc(end)
        else:
            self._count_request(end)

    def _count_request(self, end: CallEnd) -> None:
        if isinstance(end.result, BaseException):
            status, error = "", type(end.result).__name__
        else:
            status = str(end.result.status)
            error = status if end.result.status >= 400 else ""
        self._durations.of(end.service, end.request.method, status, error).observe(end.seconds)

    def _count_rpc(self, end: CallEnd) -> None:
        result, begun = end.result, monotonic() - end.seconds
        method = end.request.target.removeprefix("/")

        def count(code: str, error: str) -> None:
            self._rpc_durations.of(end.service, "grpc", method, code, error).observe(monotonic() - begun)

        if isinstance(result, BaseException):
            code = _code_of(result)
            count(code, code or type(result).__name__)
        else:
            result.when_ended(lambda: count(result.rpc_code, "" if result.rpc_code == "OK" else result.rpc_code))

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


def _code_of(error: BaseException) -> str:
    """The code that gRPC's client has for an error of a call; "" if it is another error."""
    if isinstance(error, CancelledError):
        return "CANCELLED"
    if isinstance(error, CallTimeout):
        return "DEADLINE_EXCEEDED"
    is_lost = isinstance(error, CallUnavailable) or (type(error) is CallFailed and error.answered is None)
    return "UNAVAILABLE" if is_lost else ""
