"""Counts calls: how long each took and how it ended, by method (OpenTelemetry's rpc.server metrics)."""

from __future__ import annotations

from time import perf_counter

import grpc

from ..telemetry.instruments import Histogram, Registry
from .rpc_calls import OpenCall, RpcMethod

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
        for method in methods:
            self._begin_series(method.name, Code.OK)

    def _begin_series(self, name: str, code: grpc.StatusCode) -> Histogram:
        error = code.name if code in ERRORS else ""
        found = self._series[name, code] = self._durations.of("grpc", name.removeprefix("/"), code.name, error)
        return found

    def count(self, method: RpcMethod, call: OpenCall) -> None:
        """Count a call that has ended."""
        series = self._series.get((method.name, call.status)) or self._begin_series(method.name, call.status)
        series.observe(perf_counter() - call.begun)
