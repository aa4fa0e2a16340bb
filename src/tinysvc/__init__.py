"""tinysvc: micro-services whose CPU work runs in worker processes.

The names here declare a service, or are values that its handlers take, return and raise. The parts of HTTP that a
service may ask for (static files, CORS, cookies, conditional requests, ...) are imported from their modules in
`tinysvc.web`.

Names that only a server needs are loaded on demand: a worker imports the author's modules, and so this one, and starts
faster without an event loop, a pool and an HTTP server.
"""

from .core.stdlib_shadowing import refuse_shadowing

with refuse_shadowing():
    from importlib import import_module
    from typing import TYPE_CHECKING, Any

    from .binding.markers import ApiKey, Bearer, Cookie, Form, Header, Query
    from .core.budget import budget, seconds_left
    from .core.call_errors import BudgetExhausted, CallFailed, CallRefused, CallTimeout, CallUnavailable
    from .core.errors import (
        ConfigurationError,
        DeadlineExceeded,
        HTTPError,
        NoRoute,
        PoolError,
        QueueFull,
        RemoteError,
        TinysvcError,
        WorkerDied,
    )
    from .core.form_data import UploadFile
    from .core.request_context import request_id
    from .core.requests import Request
    from .core.responses import Handler, Middleware, Response
    from .core.sse import Event, EventStream
    from .service.decorators import cpu_resource, cpu_route, io_resource, io_route
    from .service.job_options import Retry
    from .service.job_routes import job_route
    from .service.routes import Batch, Cache

if TYPE_CHECKING:
    from .core.pool_settings import Pool
    from .executor import ProcessPoolExecutor
    from .grpc.field import Field
    from .models.artifact import Artifact
    from .models.models import Models
    from .runtime.background import Background
    from .runtime.calls import call
    from .runtime.job import Job
    from .runtime.remote import Remote
    from .runtime.submit import Accepted, submit
    from .server.run import run
    from .service.service import Service
    from .web.websocket import WebSocket
    from .web.websocket_protocol import SocketClosed

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "ApiKey",
    "Artifact",
    "Background",
    "Batch",
    "Bearer",
    "BudgetExhausted",
    "Cache",
    "CallFailed",
    "CallRefused",
    "CallTimeout",
    "CallUnavailable",
    "ConfigurationError",
    "Cookie",
    "DeadlineExceeded",
    "Event",
    "EventStream",
    "Field",
    "Form",
    "HTTPError",
    "Handler",
    "Header",
    "Job",
    "Middleware",
    "Models",
    "NoRoute",
    "Pool",
    "PoolError",
    "ProcessPoolExecutor",
    "Query",
    "QueueFull",
    "Remote",
    "RemoteError",
    "Request",
    "Response",
    "Retry",
    "Service",
    "SocketClosed",
    "TinysvcError",
    "UploadFile",
    "WebSocket",
    "WorkerDied",
    "budget",
    "call",
    "cpu_resource",
    "cpu_route",
    "io_resource",
    "io_route",
    "job_route",
    "request_id",
    "run",
    "seconds_left",
    "submit",
]

_ON_DEMAND = {
    "Accepted": "runtime.submit",
    "Artifact": "models.artifact",
    "Background": "runtime.background",
    "Field": "grpc.field",
    "Job": "runtime.job",
    "Models": "models.models",
    "Pool": "core.pool_settings",
    "ProcessPoolExecutor": "executor",
    "Remote": "runtime.remote",
    "Service": "service.service",
    "SocketClosed": "web.websocket_protocol",
    "WebSocket": "web.websocket",
    "call": "runtime.calls",
    "run": "server.run",
    "submit": "runtime.submit",
}

_MOVED = {
    "Cors": "web.cors",
    "FormData": "core.form_data",
    "Headers": "core.headers",
    "SecurityHeaders": "web.security",
    "Settings": "core.settings",
    "SignedCookie": "web.cookies",
    "StaticFiles": "web.static",
    "accepted": "web.negotiation",
    "attachment": "web.negotiation",
    "cpu": "runtime.cpu_calls",
    "delete_cookie": "web.cookies",
    "link": "web.negotiation",
    "negotiated": "web.negotiation",
    "precondition": "web.conditional",
    "redirect": "web.negotiation",
    "set_cookie": "web.cookies",
    "validators": "web.conditional",
}
"""Names that were documented here before: an import that is written like that still works."""


def __getattr__(name: str) -> Any:
    module = _ON_DEMAND.get(name) or _MOVED.get(name)
    if module is None:
        raise AttributeError(f"module 'tinysvc' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
