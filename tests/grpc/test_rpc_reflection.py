"""rpc_reflection.py, read by grpcio's own client of reflection, and in both versions."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from tinysvc import Service


def read_by_client(address: str) -> tuple[list[str], list[str]]:
    """The services, and the methods of ours, as a client without the .proto finds them."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        found = pool.FindServiceByName("rpc_app.RpcApp")
        message = found.FindMethodByName("Item").input_type
        assert message.fields_by_name["item"].message_type.name == "Item"
        return sorted(database.get_services()), [method.name for method in found.methods]


@pytest.mark.asyncio
async def test_reflection() -> None:
    service = Service(rpc_app.hello, rpc_app.item, name="shop")
    async with rpc_server(service) as server, rpc_client(server) as client:
        services, methods = await asyncio.to_thread(read_by_client, server.grpc_addresses[0])
        assert services == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "rpc_app.RpcApp",
        ]
        assert methods == ["Hello", "Item"]
        info = client.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        stream = info(timeout=20)
        await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="rpc_app.RpcApp"))
        answer = await stream.read()
        names = [
            FileDescriptorProto.FromString(each).package
            for each in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert "rpc_app" in names
        await stream.write(
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.reflection.v1.ServerReflection")
        )
        assert (await stream.read()).HasField("file_descriptor_response")
        await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.rpc.ErrorInfo"))
        assert (await stream.read()).HasField("file_descriptor_response")
        assert server._grpc is not None
        assert await server._grpc.drain(20) == 0  # the open stream does not hold it up
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
