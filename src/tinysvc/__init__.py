"""tinysvc: micro-services whose CPU work runs in worker processes. The public names, nothing else.

What only a server needs is imported when it is asked for: workers import the author's modules, and so this one, and are
there sooner without an event loop, a pool and an HTTP server of their own.
"""

from .shadows import named

with named():
    from importlib import import_module
    from typing import TYPE_CHECKING, Any

    from .conditional import precondition, validators
    from .current import request_id
    from .errors import ConfigurationError, HTTPError, TinysvcError
    from .events import Event, EventStream
    from .forms import FormData, UploadFile
    from .messages import Handler, Headers, Request, Response
    from .places import ApiKey, Bearer, Cookie, Form, Header, Query
    from .routing import Batch, Cache, cpu_resource, cpu_route, io_resource, io_route

if TYPE_CHECKING:
    from .background import Background
    from .calls import cpu
    from .cookies import SignedCookie, delete_cookie, set_cookie
    from .cors import Cors
    from .executor import ProcessPoolExecutor
    from .negotiation import accepted, attachment, link, negotiated, redirect
    from .security import SecurityHeaders
    from .server import run
    from .service import Service
    from .settings import Pool, Settings
    from .static import StaticFiles
    from .websocket import SocketClosed, WebSocket

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
    "Background": "background",
    "Cors": "cors",
    "Pool": "settings",
    "ProcessPoolExecutor": "executor",
    "SecurityHeaders": "security",
    "Service": "service",
    "Settings": "settings",
    "SignedCookie": "cookies",
    "SocketClosed": "websocket",
    "StaticFiles": "static",
    "WebSocket": "websocket",
    "accepted": "negotiation",
    "attachment": "negotiation",
    "cpu": "calls",
    "delete_cookie": "cookies",
    "link": "negotiation",
    "negotiated": "negotiation",
    "redirect": "negotiation",
    "run": "server",
    "set_cookie": "cookies",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'tinysvc' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_ON_DEMAND[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
