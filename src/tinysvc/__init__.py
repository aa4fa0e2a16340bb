"""tinysvc: micro-services whose CPU work runs in worker processes. The public names, nothing else.

What only a server needs is imported when it is asked for: workers import the author's modules, and so this one, and are
there sooner without an event loop, a pool and an HTTP server of their own.
"""

from .core.shadows import named

with named():
    from importlib import import_module
    from typing import TYPE_CHECKING, Any

    from .binding.markers import ApiKey, Bearer, Cookie, Form, Header, Query
    from .core.context import request_id
    from .core.errors import ConfigurationError, HTTPError, TinysvcError
    from .core.forms import FormData, UploadFile
    from .core.messages import Handler, Headers, Request, Response
    from .core.sse import Event, EventStream
    from .service.routes import Batch, Cache, cpu_resource, cpu_route, io_resource, io_route
    from .web.conditional import precondition, validators

if TYPE_CHECKING:
    from .core.settings import Pool, Settings
    from .executor import ProcessPoolExecutor
    from .runtime.background import Background
    from .runtime.cpu_calls import cpu
    from .server.server import run
    from .service.service import Service
    from .web.cookies import SignedCookie, delete_cookie, set_cookie
    from .web.cors import Cors
    from .web.negotiation import accepted, attachment, link, negotiated, redirect
    from .web.security import SecurityHeaders
    from .web.static import StaticFiles
    from .web.websocket import SocketClosed, WebSocket

__version__ = "0.1.0"

__all__ = [
    "ApiKey",
    "Background",
    "Batch",
    "Bearer",
    "Cache",
    "ConfigurationError",
    "Cookie",
    "Cors",
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
    "SecurityHeaders",
    "Service",
    "Settings",
    "SignedCookie",
    "SocketClosed",
    "StaticFiles",
    "TinysvcError",
    "UploadFile",
    "WebSocket",
    "accepted",
    "attachment",
    "cpu",
    "cpu_resource",
    "cpu_route",
    "delete_cookie",
    "io_resource",
    "io_route",
    "link",
    "negotiated",
    "precondition",
    "redirect",
    "request_id",
    "run",
    "set_cookie",
    "validators",
]

_ON_DEMAND = {
    "Background": "runtime.background",
    "Cors": "web.cors",
    "Pool": "core.settings",
    "ProcessPoolExecutor": "executor",
    "SecurityHeaders": "web.security",
    "Service": "service.service",
    "Settings": "core.settings",
    "SignedCookie": "web.cookies",
    "SocketClosed": "web.websocket",
    "StaticFiles": "web.static",
    "WebSocket": "web.websocket",
    "accepted": "web.negotiation",
    "attachment": "web.negotiation",
    "cpu": "runtime.cpu_calls",
    "delete_cookie": "web.cookies",
    "link": "web.negotiation",
    "negotiated": "web.negotiation",
    "redirect": "web.negotiation",
    "run": "server.server",
    "set_cookie": "web.cookies",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'tinysvc' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
