"""Libraries that only some services need: each is an extra of the package."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Literal

Library = Literal[
    "asyncpg",
    "cronsim",
    "cryptography",
    "grpc",
    "itsdangerous",
    "multipart",
    "obstore",
    "opentelemetry",
    "prometheus_client",
    "protobuf",
    "websockets",
]

_NEEDS: dict[Library, tuple[str, str, str]] = {
    "asyncpg": ("asyncpg", "durable jobs in PostgreSQL need the asyncpg library", "postgres"),
    "cronsim": ("cronsim", "schedules need the cronsim library", "cron"),
    "cryptography": ("cryptography", "signatures of models need the cryptography library", "models"),
    "grpc": ("grpc", "gRPC needs the grpcio library with protobuf, health checking and reflection", "grpc"),
    "itsdangerous": ("itsdangerous", "signed cookies need the itsdangerous library", "cookies"),
    "multipart": ("multipart", "uploads need the multipart library", "forms"),
    "obstore": ("obstore", "models in an object store need the obstore library", "models"),
    "prometheus_client": ("prometheus_client", "metrics need the prometheus_client library", "metrics"),
    "protobuf": ("google.protobuf", "messages of gRPC need the protobuf library", "grpc"),
    "opentelemetry": (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "traces need the opentelemetry library with its SDK and its OTLP exporter",
        "otel",
    ),
    "websockets": ("websockets.server", "WebSocket needs the websockets library", "websocket"),
}
"""The module that is imported, the feature that needs it, and the extra that installs it."""

_NEEDS_LATER: dict[Library, tuple[str, ...]] = {
    "grpc": ("google.protobuf.message", "grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection"),
}
"""Modules that are imported only when they are used, and must be there."""


def missing_library(name: Library) -> str:
    """Why this interpreter cannot import a library, and the remedy; "" if it can."""
    module, need, extra = _NEEDS[name]
    try:
        import_module(module)
        for each in _NEEDS_LATER.get(name, ()):
            if find_spec(each) is None:  # it imports the packages around the module, which are small
                raise ModuleNotFoundError(f"No module named {each!r}")
    except ImportError as error:
        return f"{need} ({error}); pip install 'tinysvc[{extra}]'"
    return ""
