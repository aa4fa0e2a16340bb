"""Health of the service (grpc.health.v1): what /readyz says over HTTP. Balancers and Kubernetes ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import grpc

from ..core.proto_bytes import bytes_field, number_field, read_fields
from .endless_streams import EndlessStreams
from .open_calls import Context

LOOK_AGAIN = 1.0
"""Seconds between two looks at the health for a client that watches it: no event reports that a worker has died."""

SERVICE = "grpc.health.v1.Health"

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
"""HealthCheckResponse.ServingStatus."""


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
        """Report NOT_SERVING from now on: the server drains, and lets its calls finish."""
        self._leaves = True
        self._changed.set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        watch = self._streams.around(self._watch)
        return {
            f"/{SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check, _service_in, _response),
            f"/{SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(watch, _service_in, _response),
            f"/{SERVICE}/List": grpc.unary_unary_rpc_method_handler(self._list),
        }

    def _status(self, service: str) -> int:
        if service not in self._services:
            return SERVICE_UNKNOWN
        return SERVING if not self._leaves and self._is_ready() else NOT_SERVING

    async def _check(self, service: str, context: Context) -> int:
        status = self._status(service)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"This server has no service {service!r:.200}.")
        return status

    async def _list(self, request: bytes, context: Context) -> bytes:
        """A HealthListResponse: `map<string, HealthCheckResponse> statuses = 1`."""
        statuses = ((name, _response(self._status(name))) for name in self._services)
        return b"".join(bytes_field(1, bytes_field(1, name) + bytes_field(2, status)) for name, status in statuses)

    async def _watch(self, service: str, context: Context) -> None:
        last = None
        while True:
            status = self._status(service)
            if status != last:
                await context.write(status)
                last = status
            with suppress(TimeoutError):
                if self._changed.is_set():
                    await asyncio.sleep(LOOK_AGAIN)
                else:
                    await asyncio.wait_for(self._changed.wait(), LOOK_AGAIN)


def _service_in(request: bytes) -> str:
    """The service that a HealthCheckRequest asks for; "" for the whole server."""
    name = dict(read_fields(request)).get(1, b"")
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else ""


def _response(status: int) -> bytes:
    """A HealthCheckResponse."""
    return number_field(1, status)
