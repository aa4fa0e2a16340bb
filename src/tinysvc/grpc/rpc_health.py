"""Health of the service (grpc.health.v1): what /readyz says over HTTP. Balancers and Kubernetes ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from grpc_health.v1 import health_pb2

import grpc

from .endless_streams import EndlessStreams
from .rpc_calls import Context

LOOK_AGAIN = 1.0
"""Seconds between two looks at the health for a client that watches it: no event reports that a worker has died."""

SERVICE = "grpc.health.v1.Health"

_Response = health_pb2.HealthCheckResponse


class Health:
    """The health of all services of this server, which they share.

    Args:
        services: Their full names.
        is_ready: Whether the service can take requests.
        streams: Ends the watching clients' streams when the server drains.
    """

    def __init__(self, services: Iterable[str], is_ready: Callable[[], bool], streams: EndlessStreams) -> None:
        self._services = {"", SERVICE, *services}
        self._is_ready = is_ready
        self._streams = streams
        self._leaves = False
        self._changed = asyncio.Event()

    def leave(self) -> None:
        """The server ends soon: it is not serving from now on, although it does."""
        self._leaves = True
        self._changed.set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        read, write = health_pb2.HealthCheckRequest.FromString, _Response.SerializeToString
        handlers = {
            f"/{SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check, read, write),
            f"/{SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(self._streams.around(self._watch), read, write),
        }
        if hasattr(health_pb2, "HealthListRequest"):  # older versions of the library have no List
            read, write = health_pb2.HealthListRequest.FromString, health_pb2.HealthListResponse.SerializeToString
            handlers[f"/{SERVICE}/List"] = grpc.unary_unary_rpc_method_handler(self._list, read, write)
        return handlers

    def _status(self, service: str) -> int:
        if service not in self._services:
            return int(_Response.SERVICE_UNKNOWN)
        return int(_Response.SERVING if not self._leaves and self._is_ready() else _Response.NOT_SERVING)

    async def _check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"This server has no service {request.service!r:.200}.")
        return _Response(status=status)

    async def _list(self, request: Any, context: Context) -> Any:
        statuses = {name: _Response(status=self._status(name)) for name in self._services}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def _watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        last = None
        while True:
            status = self._status(request.service)
            if status != last:
                await context.write(_Response(status=status))
                last = status
            with suppress(TimeoutError):
                if self._changed.is_set():
                    await asyncio.sleep(LOOK_AGAIN)
                else:
                    await asyncio.wait_for(self._changed.wait(), LOOK_AGAIN)
