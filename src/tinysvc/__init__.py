"""tinysvc: micro-services whose CPU work runs in worker processes. The public names, nothing else.

What only a server needs is imported when it is asked for: workers import the author's modules, and so this one, and are
there sooner without an event loop, a pool and an HTTP server of their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .binding import Cookie, Form, Header, Query
from .conditional import precondition, validators
from .errors import ConfigurationError, HTTPError, TinysvcError
from .events import Event, EventStream
from .forms import FormData, UploadFile
from .messages import Handler, Headers, Request, Response, request_id
from .routing import Batch, Cache, cpu_resource, cpu_route, io_resource, io_route

if TYPE_CHECKING:
    from .calls import cpu
    from .executor import ProcessPoolExecutor
    from .server import run
    from .service import Service
    from .settings import Pool, Settings
    from .static import StaticFiles
    from .websocket import SocketClosed, WebSocket

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Cache",
    "ConfigurationError",
    "Cookie",
    "Event",
    "EventStream",
    "Form",
    "FormData",
    "HTTPError",
    "Handler",
    "Header",
    "Headers",
    "Pool",
    "ProcessPoolExecutor",
    "Query",
    "Request",
    "Response",
    "Service",
    "Settings",
    "SocketClosed",
    "StaticFiles",
    "TinysvcError",
    "UploadFile",
    "WebSocket",
    "cpu",
    "cpu_resource",
    "cpu_route",
    "io_resource",
    "io_route",
    "precondition",
    "request_id",
    "run",
    "validators",
]

_ON_DEMAND = {
    "Pool": "settings",
    "ProcessPoolExecutor": "executor",
    "Service": "service",
    "Settings": "settings",
    "SocketClosed": "websocket",
    "StaticFiles": "static",
    "WebSocket": "websocket",
    "cpu": "calls",
    "run": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'tinysvc' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
