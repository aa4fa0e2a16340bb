"""Reflection: clients such as grpcurl read the services and their types from the server, and the details of errors.

Two versions with equal messages are served: v1, and v1alpha for older clients. The library has only v1alpha.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

import grpc

from .endless_streams import EndlessStreams
from .rpc_details import detail_files
from .rpc_health import SERVICE as HEALTH

VERSIONS = ("v1", "v1alpha")


def reflection_handlers(
    services: Iterable[str], descriptors: bytes, streams: EndlessStreams
) -> dict[str, grpc.RpcMethodHandler]:
    """The methods by their full names.

    Args:
        services: The full names of the services.
        descriptors: Their files, encoded (FileDescriptorSet), each behind the files that it imports.
        streams: Ends the streams when the server drains.
    """
    names = [f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS]
    servicer = aio.ReflectionServicer([*services, HEALTH, *names], _pool_of(descriptors))

    async def info(messages: Any, context: Any) -> None:
        async for answer in servicer.ServerReflectionInfo(messages, context):
            await context.write(answer)

    handler = grpc.stream_stream_rpc_method_handler(
        streams.around(info),
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return {f"/{name}/ServerReflectionInfo": handler for name in names}


def _pool_of(descriptors: bytes) -> DescriptorPool:
    pool = DescriptorPool()
    files = list(FileDescriptorSet.FromString(descriptors).file)
    health, alpha = FileDescriptorProto(), FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(health)
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    known = {file.name for file in files}
    details = [file for file in detail_files() if file.name not in known]
    for file in (*files, *details, health, alpha, _version_1(alpha)):
        pool.Add(file)
    return pool


def _version_1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """The file of v1: that of v1alpha with another package."""
    file = FileDescriptorProto()
    file.CopyFrom(alpha)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", "grpc.reflection.v1"
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _renamed(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    return file


def _renamed(name: str) -> str:
    return name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
