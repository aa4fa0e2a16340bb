"""Reflection: clients such as grpcurl read the services and their types from the server, and the details of errors.

Two versions with equal messages are served: v1, and v1alpha for older clients. The library has only v1alpha. It is
imported for the first call: most servers never get one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import grpc

from .endless_streams import EndlessStreams
from .message_classes import files_in, with_imports
from .rpc_health import SERVICE as HEALTH

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool

VERSIONS = ("v1", "v1alpha")


def reflection_handlers(
    services: Iterable[str], descriptors: bytes, streams: EndlessStreams
) -> dict[str, grpc.RpcMethodHandler]:
    """The methods by their full names.

    Args:
        services: The full names of the services.
        descriptors: Their files, encoded (FileDescriptorSet).
        streams: Ends the streams when the server drains.
    """
    names = [f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS]
    reflection = _Reflection([*services, HEALTH, *names], descriptors)
    handler = grpc.stream_stream_rpc_method_handler(
        streams.around(reflection.info), reflection.read, lambda response: response.SerializeToString()
    )
    return {f"/{name}/ServerReflectionInfo": handler for name in names}


class _Reflection:
    """The answers to clients, from a pool of descriptors that is made for the first call."""

    def __init__(self, services: Sequence[str], descriptors: bytes) -> None:
        self._services = services
        self._descriptors = descriptors

    def read(self, request: bytes) -> Any:
        """A request. DecodeError."""
        return self._messages.ServerReflectionRequest.FromString(request)

    async def info(self, messages: Any, context: Any) -> None:
        async for answer in self._servicer.ServerReflectionInfo(messages, context):
            await context.write(answer)

    @cached_property
    def _messages(self) -> Any:
        from grpc_reflection.v1alpha import reflection_pb2

        return reflection_pb2

    @cached_property
    def _servicer(self) -> Any:
        from grpc_reflection.v1alpha.reflection import aio

        return aio.ReflectionServicer(self._services, _pool_of(self._descriptors))


def _pool_of(descriptors: bytes) -> DescriptorPool:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    from .rpc_details import detail_files

    alpha = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    own = health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb
    pool = DescriptorPool()
    for file in with_imports([*files_in(descriptors), *detail_files(), *own, _version_1(alpha).SerializeToString()]):
        pool.AddSerializedFile(file)
    return pool


def _version_1(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file of v1: that of v1alpha with another package."""
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
