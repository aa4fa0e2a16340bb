"""Counts calls: how long each took and how it ended, by method (OpenTelemetry's rpc.server metrics)."""

from __future__ import annotations

from time import perf_counter

import grpc

from ..telemetry.instruments import Histogram, Registry
from .open_calls import OpenCall
from .rpc_calls import RpcMethod

Code = grpc.StatusCode

ERRORS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
"""The codes that are the server's errors; the others are the client's (OpenTelemetry's conventions for gRPC)."""


class RpcMetrics:
    """The counts of all calls of one service.

    Args:
        registry: The metrics of this process.
        methods: The methods. Each has a series from the beginning: a rate needs the zero before the first call.
    """

    def __init__(self, registry: Registry, methods: list[RpcMethod]) -> None:
        self._durations = registry.histogram(
            "rpc.server.call.duration",
            "Time from the message of a call to its status, of a stream to its end.",
            ["rpc.system.name", "rpc.method", "rpc.status_code", "error.type"],
        )
        self._series: dict[tuple[str, grpc.StatusCode], Histogram] = {}
        self._of_success = {method.name: self._series_of(method.name, Code.OK) for method in methods}

    def _series_of(self, name: str, code: grpc.StatusCode) -> Histogram:
        found = self._series.get((name, code))
        if found is None:
            error = code.name if code in ERRORS else ""
            found = self._series[name, code] = self._durations.of("grpc", name.removeprefix("/"), code.name, error)
        return found

    def count(self, call: OpenCall) -> None:
        """Count a call that has ended."""
        name, status = call.method.name, call.status
        series = self._of_success.get(name) if status is Code.OK else None  # the hash of an Enum's member is slow
        (series or self._series_of(name, status)).observe(perf_counter() - call.begun)
