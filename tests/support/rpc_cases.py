"""Handlers and schemas for the tests of gRPC's messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinysvc import Service, io_route
from tinysvc.grpc.codec import Codec
from tinysvc.grpc.proto_text import text_of
from tinysvc.grpc.rpc_schema import RpcSchema
from tinysvc.service.plan import plans_of


def schema_of(*functions: Any, name: str = "shop", lock: str | None = None) -> RpcSchema:
    return RpcSchema.of(name, list(plans_of(Service(*functions))), lock)


def proto_of(schema: RpcSchema) -> str:
    """The text of its .proto files."""
    return "\n".join(map(text_of, schema.proto_files))


def handler_of(annotation: Any, result: Any = None, default: Any = ...) -> Callable[..., Any]:
    """`handle(value: annotation) -> result`; without `result`, the same type."""

    async def handle(value: Any) -> Any:
        return value

    handle.__annotations__ = {"value": annotation, "return": annotation if result is None else result}
    if default is not ...:
        handle.__defaults__ = (default,)
    return io_route("/handle", methods=["POST"])(handle)


def codec_of(annotation: Any, **options: Any) -> Codec:
    (method,) = schema_of(handler_of(annotation, **options)).methods
    return method.codec


def sent(annotation: Any, value: Any) -> Any:
    """A value after its way through a request and a reply."""
    codec = codec_of(annotation)
    argument = codec.decode_arguments(codec.encode_arguments({"value": value}))["value"]
    result = codec.decode_result(codec.encode_result(argument))
    assert result == argument
    return argument
