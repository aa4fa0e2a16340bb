"""The gRPC server of one server process: grpcio's asyncio server with generic handlers, beside the HTTP server.

    start    the routes become methods; health and reflection; then grpcio listens
    drain    GOAWAY and no new RPC; RPCs finish; the rest gets UNAVAILABLE

grpcio binds its own sockets. The address is therefore reserved by a bound socket that never listens: see
server/sockets.py. Several processes share a port (SO_REUSEPORT). A Unix socket cannot be shared, so it is bound under
another name and renamed: a newer version of the service takes the path over without a gap.

grpcio does not survive a fork. This file is imported only in a server process, after that has been forked.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import grpc.aio

import grpc

from ..core.errors import ConfigurationError
from ..core.responses import problem_response
from ..core.settings import GRPC_PLACE, Settings
from ..core.shutdown import CUT_OFF, MIN_STEP_TIME, awake_timeout
from ..runtime.limits import limited_body
from ..runtime.message_routes import MessageRoute, MessageRoutes
from ..telemetry.instruments import Registry
from .endless_streams import EndlessStreams
from .open_calls import Context, OpenCalls
from .rpc_access_log import log_call
from .rpc_calls import MEMORY_IS_FULL, RpcMethod, RpcServing, unbegun
from .rpc_errors import status_of
from .rpc_health import Health
from .rpc_metrics import RpcMetrics
from .rpc_options import server_options
from .rpc_reflection import reflection_handlers
from .rpc_targets import target_filler
from .rpc_tls import RpcCertificates
from .silent_calls import SilentCalls

log = logging.getLogger("tinysvc.grpc")

LAST_STATUSES = 0.5
"""Seconds, at most a tenth of the drain, in which RPCs that are ended at its end send their status."""


LOW_RATE = 100_000
"""Bytes a second at which the largest message may arrive, after `body_timeout`: its progress is not visible."""


class Serving(RpcServing, Protocol):
    """A running service."""

    messages: MessageRoutes

    def is_ready(self) -> bool:
        """Whether every pool has all its workers, and every resource is open."""


class RpcServer:
    """Serves the routes of a running service by gRPC.

    Args:
        serving: The running service, whose `messages.routes` are served.
        descriptors: The file descriptors of the services, encoded (google.protobuf.FileDescriptorSet).
        settings: The server's settings.
        registry: Takes the metrics; None: nothing is counted.
    """

    def __init__(
        self, serving: Serving, descriptors: bytes, settings: Settings, registry: Registry | None = None
    ) -> None:
        self._settings = settings
        self._certificates = RpcCertificates(settings) if settings.ssl_cert else None
        limits = {route.plan: route.plan.max_body_size(settings) for route in serving.messages.routes}
        largest = max(limits.values(), default=0)
        timeout = settings.body_timeout and settings.body_timeout + largest / LOW_RATE
        silent = SilentCalls(timeout, max(1, settings.max_body_memory // max(1, largest)))
        self.calls = OpenCalls("https" if settings.ssl_cert else "http", silent, settings.max_body_memory)
        routes = [_limited(route, limits[route.plan], largest) for route in serving.messages.routes]
        if settings.proxy_headers or settings.root_path:
            routes = [_behind_proxies(route, settings) for route in routes]
        self.methods = [
            RpcMethod(route, serving, self.calls, target_filler(route.plan, route.messages)) for route in routes
        ]
        if registry is not None:
            self.calls.on_end.append(RpcMetrics(registry, self.methods).count)
        if settings.access_log:
            self.calls.on_end.append(log_call)
        services = sorted({method.name.split("/")[1] for method in self.methods})
        self._streams = EndlessStreams()
        self.health = Health(services, serving.is_ready, self._streams)
        self._server = grpc.aio.server(
            options=server_options(settings, limits.values()),
            compression=grpc.Compression.Gzip if settings.compress else None,
        )
        handlers = {method.name: method.method_handler() for method in self.methods}
        handlers |= self.health.handlers()
        if settings.docs:
            handlers |= reflection_handlers(services, descriptors, self._streams)
        with_message = [each.name for each in self.methods if not each.route.messages.takes_stream]
        self._server.add_generic_rpc_handlers((MethodTable(handlers, self.calls, settings, with_message),))
        self._stopping: asyncio.Task[None] | None = None
        self._unix: tuple[str, os.stat_result] | None = None
        self.addresses: list[str] = []

    async def start(self, addresses: Sequence[str]) -> None:
        """Listen.

        Args:
            addresses: As in "127.0.0.1:50051"; not used for a Unix socket.

        Raises:
            ConfigurationError: An address cannot be had.
        """
        place = GRPC_PLACE.fullmatch(self._settings.grpc)
        path = place["unix"] if place else None
        if path:
            _check_path(path)
        for address in [f"unix:{_hidden(path)}"] if path else addresses:
            try:
                with _permissions(self._settings.unix_mode if path else ""):
                    if self._certificates is None:
                        self._server.add_insecure_port(address)
                    else:
                        self._server.add_secure_port(address, self._certificates.credentials)
            except RuntimeError as error:  # its message names errno at best; the reason is in grpcio's own log
                raise ConfigurationError(f"cannot listen on {address} for gRPC: {error}") from None
        await self._server.start()
        if path:
            self._publish(path)
        self.addresses = [f"unix:{path}"] if path else list(addresses)

    def _publish(self, path: str) -> None:
        """Give the Unix socket its name."""
        hidden = _hidden(path)
        self._unix = path, os.stat(hidden)
        os.rename(hidden, path)

    def reload_certificates(self) -> None:
        """Use the certificates that the files have now, for new connections."""
        if self._certificates is not None:
            self._certificates.reload()

    def begin_drain(self, seconds: float) -> None:
        """Take no new RPC: clients are told by GOAWAY, and go elsewhere. Those that run have `seconds` to finish."""
        self.health.leave()
        if self._stopping is None:
            self._unlink()
            self._stopping = asyncio.create_task(self._stop(seconds))

    async def _stop(self, seconds: float) -> None:
        async with self.calls.hold_replies():
            stopping = asyncio.create_task(self._server.stop(seconds))
            await asyncio.sleep(0)  # it has begun
        self._streams.end()
        await stopping

    async def drain(self, seconds: float) -> int:
        """Let the RPCs finish within `seconds`; then end them. Returns how many did not finish."""
        last = min(LAST_STATUSES, seconds / 10)
        self.begin_drain(seconds)
        assert self._stopping is not None
        unfinished = 0
        with suppress(TimeoutError):
            async with awake_timeout(max(MIN_STEP_TIME, seconds - last)):
                await asyncio.shield(self._stopping)
        if not self._stopping.done():
            unfinished = self.calls.running
            self.calls.end_all()
            await self._server.stop(last)
        await self._stopping
        for task in list(self.calls.finishing):
            task.cancel(CUT_OFF)
        if self.calls.finishing:
            await asyncio.wait(self.calls.finishing, timeout=MIN_STEP_TIME)
        return unfinished

    def _unlink(self) -> None:
        """Remove the Unix socket, if its path still leads to it."""
        if self._unix is not None:
            path, made = self._unix
            with suppress(OSError):
                if os.path.samestat(os.stat(path), made):
                    os.unlink(path)


def _limited(route: MessageRoute, size: int, largest: int) -> MessageRoute:
    """The route, for messages of at most `size` bytes; grpcio itself refuses those beyond `largest`."""
    return route if size == largest else route._replace(handler=limited_body(route.handler, size))


def _behind_proxies(route: MessageRoute, settings: Settings) -> MessageRoute:
    from ..web.proxies import behind_proxies  # imported only where it is used

    return route._replace(handler=behind_proxies(route.handler, settings.proxy_headers, settings.root_path))


def _check_path(path: str) -> None:
    """Refuse a path for a Unix socket, with the reason: grpcio names none."""
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ConfigurationError(f"cannot listen on unix:{path} for gRPC: there is no folder {folder}; create it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"cannot listen on unix:{path} for gRPC: no socket can be created in {folder}; permit it, or choose "
            "another path"
        )
    if os.path.lexists(path) and not Path(path).is_socket():
        raise ConfigurationError(f"cannot listen on {path} for gRPC: that is no socket; choose another path")


@contextmanager
def _permissions(mode: str) -> Iterator[None]:
    """A Unix socket that is bound here has them from the beginning: at no moment may other users connect."""
    if not mode:
        yield
        return
    before = os.umask(0o777 & ~int(mode, 8))
    try:
        yield
    finally:
        os.umask(before)


def _hidden(path: str) -> str:
    """The name under which grpcio binds a Unix socket; it also removes that name at its end."""
    found = Path(path)
    return str(found.with_name(f".{found.name}.{os.getpid()}"))


class MethodTable:
    """The methods by name, and the limits that are checked before an RPC's message is read (a GenericRpcHandler).

    Args:
        handlers: grpcio's handler of each method, by its full name.
        calls: The RPCs that run.
        with_message: The methods of the service that begin when their message has arrived.
        settings: `max_connections` is also how many RPCs may run, and `max_body_memory` the bytes of their messages.
    """

    def __init__(
        self,
        handlers: dict[str, grpc.RpcMethodHandler],
        calls: OpenCalls,
        settings: Settings,
        with_message: Iterable[str],
    ) -> None:
        self._waiting = {name: handlers[name] for name in with_message}  # those that wait for a message
        self._others = {name: handler for name, handler in handlers.items() if name not in self._waiting}
        self._calls = calls
        self._max_calls, self._max_bytes = settings.max_connections, settings.max_body_memory
        self._too_many = _refusal(f"The server already handles {self._max_calls} calls, its limit.")
        self._too_big = _refusal(MEMORY_IS_FULL)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method; None if there is no such method."""
        calls = self._calls
        if calls.begun - calls.ended >= self._max_calls:
            return self._too_many
        if calls.message_bytes >= self._max_bytes:
            return self._too_big
        method = handler_call_details.method
        if (handler := self._waiting.get(method)) is None:
            return self._others.get(method)
        if (task := asyncio.current_task(calls.loop)) is not None:
            silent = calls.silent
            silent.metadata[task] = handler_call_details.invocation_metadata
            if silent.timer is None:
                silent.watch()
        return handler


def _refusal(text: str) -> grpc.RpcMethodHandler:
    """The handler of an RPC that is refused before its message is read: UNAVAILABLE."""
    status = status_of(problem_response(unbegun(text)))

    async def refuse(messages: object, context: Context) -> None:
        await context.abort(status.code, status.message, status.metadata)

    return grpc.stream_stream_rpc_method_handler(refuse)
