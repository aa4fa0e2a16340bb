"""tinysvc: micro-services whose CPU work runs in worker processes. The public names, nothing else."""

from .binding import Cookie, Header, Query
from .errors import ConfigurationError, HTTPError, TinysvcError
from .executor import ProcessPoolExecutor
from .messages import Handler, Headers, Request, Response
from .routing import cpu_resource, cpu_route, io_resource, io_route
from .server import run
from .service import Service
from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "ConfigurationError",
    "Cookie",
    "HTTPError",
    "Handler",
    "Header",
    "Headers",
    "ProcessPoolExecutor",
    "Query",
    "Request",
    "Response",
    "Service",
    "Settings",
    "TinysvcError",
    "cpu_resource",
    "cpu_route",
    "io_resource",
    "io_route",
    "run",
]
