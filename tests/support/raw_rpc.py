"""A gRPC server without tinysvc: each method is a function of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio
from raw_servers import Caller
from tinysvc.client.address import parse_address
from tinysvc.client.messages import Outgoing
from tinysvc.client.services import Services
from tinysvc.core.settings import Settings

Method = Callable[..., Any]


class RawRpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves `/raw/<name>` by functions; the name of one that streams begins with "stream"."""

    def __init__(self, methods: dict[str, Method]) -> None:
        self.methods = methods
        self.target = ""
        self.metadata: list[dict[str, Any]] = []

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self.metadata.append(dict(details.invocation_metadata))
        make = grpc.unary_stream_rpc_method_handler if name[:6] == "stream" else grpc.unary_unary_rpc_method_handler
        if name[:4] == "sent":
            make = grpc.stream_unary_rpc_method_handler
        return make(self.methods[name])


@asynccontextmanager
async def raw_rpc_server(
    target: str = "127.0.0.1:0", credentials: Any = None, **methods: Method
) -> AsyncIterator[RawRpcServer]:
    raw = RawRpcServer(methods)
    server = aio.server()
    server.add_generic_rpc_handlers([raw])
    port = server.add_insecure_port(target) if credentials is None else server.add_secure_port(target, credentials)
    raw.target = target if target.startswith("unix:") else f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
    await server.start()
    try:
        yield raw
    finally:
        await server.stop(0)


@asynccontextmanager
async def rpc_calling(*addresses: str, **options: Any) -> AsyncIterator[RpcCaller]:
    """Calls to the replicas at these addresses."""
    services = Services({"callee": [parse_address(each) for each in addresses]}, Settings(**options))
    try:
        yield RpcCaller(services)
    finally:
        await services.aclose()
        for _, replica in services.replicas():
            assert (replica.in_flight, len(replica.connections.open)) == (0, 0)


class RpcCaller(Caller):
    """Sends calls over gRPC."""

    async def rpc(self, name: str, body: Any = b"", headers: Any = (), **options: Any) -> Any:
        """The response of a method."""
        outgoing = Outgoing("POST", f"/raw/{name}", list(headers), body, streams=name[:6] == "stream")
        return await self.services.send("callee", outgoing, **{"deadline": None, "idempotent": False, **options})
