"""Both ends of gRPC: a server in this process, and calls with the codec of its schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

import grpc
from tinysvc import Service
from tinysvc.core.settings import Settings
from tinysvc.grpc.rpc_schema import Method
from tinysvc.grpc.schema_of import schema_of
from tinysvc.server.server import Server
from tinysvc.service.plan import plans_of

Call = Any
"""grpcio's call."""


class RpcClient:
    """A channel, and the methods of a service by the names of their handlers."""

    def __init__(self, channel: grpc.aio.Channel, service: Service) -> None:
        self.channel = channel
        schema = schema_of(plans_of(service))
        self.methods: dict[Callable[..., Any], Method] = {each.plan.route.function: each for each in schema.methods}

    def begin(self, function: Callable[..., Any], arguments: dict[str, Any], **options: Any) -> Call:
        """Start a call; await it for the message."""
        method = self.methods[function]
        make = self.channel.unary_stream if method.server_streams else self.channel.unary_unary
        return make(method.path)(method.codec.encode_arguments(arguments), **options)

    async def call(
        self, function: Callable[..., Any], /, _options: dict[str, Any] | None = None, **arguments: Any
    ) -> Any:
        """The result."""
        message = await self.begin(function, arguments, **{"timeout": 20, **(_options or {})})
        return self.methods[function].codec.decode_result(message)

    async def items(
        self, function: Callable[..., Any], /, _options: dict[str, Any] | None = None, **arguments: Any
    ) -> list[Any]:
        """The items of a stream."""
        decode = self.methods[function].codec.decode_item
        return [decode(each) async for each in self.begin(function, arguments, **{"timeout": 20, **(_options or {})})]

    def begin_stream(self, function: Callable[..., Any], **options: Any) -> Call:
        """Start a call that sends a stream."""
        method = self.methods[function]
        make = self.channel.stream_stream if method.server_streams else self.channel.stream_unary
        return make(method.path)(**{"timeout": 20, **options})

    async def error(
        self, function: Callable[..., Any], /, _options: dict[str, Any] | None = None, **arguments: Any
    ) -> grpc.aio.AioRpcError:
        """The error with which the call ends."""
        try:
            if self.methods[function].server_streams:
                await self.items(function, **arguments)
            else:
                await self.call(function, _options, **arguments)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError(f"{function.__name__} has not failed")


@asynccontextmanager
async def rpc_server(service: Service, **options: Any) -> AsyncIterator[Server]:
    """A server of this process with gRPC on a free port."""
    server = Server(service, Settings(**{"port": 0, "grpc": "127.0.0.1:0", "cpu_workers": 1, **options}))
    async with server.listening():
        yield server


@asynccontextmanager
async def rpc_client(server: Server, **options: Any) -> AsyncIterator[RpcClient]:
    """A client with a channel of its own."""
    arguments = [("grpc.use_local_subchannel_pool", 1), *options.items()]
    async with grpc.aio.insecure_channel(server.grpc_addresses[0], options=arguments) as channel:
        yield RpcClient(channel, server.service)
