"""The connection to one replica over gRPC: a channel of grpcio, which carries all calls at the same time.

    ready ──> a channel that is connected, or None ──> connect: waits for it, at most as long as for HTTP

grpcio connects by itself, with pauses that grow; here a channel that cannot connect is closed, because the breaker of
the replica already says when to try again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import grpc
from grpc import aio

from ..core.settings import Settings
from .address import Address
from .replica_connections import CLOSED, CONNECT_TIMEOUT, FAIR_TIME, Endpoint
from .retries import AttemptFailed, Failure

KEEP_ALIVE = 20.0
"""Seconds between two pings while a call runs: a host that is gone is found out. Servers here allow one in 10."""

PING_TIMEOUT = 10.0
"""Seconds to wait for the answer to a ping."""

FINISH_TIME = 30.0
"""Seconds in which calls may end whose channel cannot connect any more."""

READY, IDLE = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.IDLE
BROKEN = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)

UNIX = socket.AF_UNIX


class Busy(Protocol):
    """The replica that the channel belongs to."""

    in_flight: int


class RpcChannel:
    """The channel of one endpoint. It is made by the first call, and closed if it is idle for too long.

    Args:
        address: Address of the replica.
        endpoint: What it means now.
        settings: Limits, and the files for TLS.
        keep: Keeps a task until its end.
        owner: The replica.
    """

    def __init__(
        self,
        address: Address,
        endpoint: Endpoint,
        settings: Settings,
        keep: Callable[[asyncio.Task[None]], None],
        owner: Busy,
    ) -> None:
        self.open: list[aio.Channel] = []  # one, or none
        self.closing = False
        self._address = address
        self._endpoint = endpoint
        self._settings = settings
        self._keep = keep
        self._owner = owner
        self._used = 0.0
        self._is_aborted = False
        self._methods: dict[tuple[str, bool, bool], Any] = {}
        self._connecting: asyncio.Task[str] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def is_ready(self, now: float) -> bool:
        """Whether a call can begin at once."""
        self._used = now
        return bool(self.open) and self.open[0].get_state(try_to_connect=True) is READY

    async def connect(self, deadline: float | None) -> None:
        """Wait until a call can begin.

        Raises:
            AttemptFailed: There is no connection.
            TimeoutError: The deadline has passed.
        """
        limit = CONNECT_TIMEOUT if deadline is None else min(CONNECT_TIMEOUT, (deadline - monotonic()) / 2)
        if limit <= 0.0:
            raise TimeoutError
        if self._connecting is None:
            if self._is_aborted:
                raise AttemptFailed(Failure.REFUSED, CLOSED)
            self._connecting = asyncio.get_running_loop().create_task(self._connect(self._channel()))
        connecting = self._connecting
        await asyncio.wait([connecting], timeout=limit)
        if not connecting.done():
            failure = Failure.NO_TIME if limit < FAIR_TIME else Failure.SLOW_CONNECT
            failure = Failure.NOT_SENT if limit == CONNECT_TIMEOUT else failure
            raise AttemptFailed(failure, f"A connection was not made within {limit:.2g} s.")
        if self._is_aborted:
            raise AttemptFailed(Failure.REFUSED, CLOSED)
        if fault := connecting.result():
            is_refused = self._address.scheme != "grpcs"  # with TLS it may be the certificate
            raise AttemptFailed(Failure.REFUSED if is_refused else Failure.NOT_SENT, fault)

    async def _connect(self, channel: aio.Channel) -> str:
        """Wait for the channel; return what went wrong, or ""."""
        fault = f"A connection was not made within {CONNECT_TIMEOUT:.2g} s."
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while (state := channel.get_state(try_to_connect=True)) is not READY:
                    if state in BROKEN:
                        fault = "A connection was not made: the address refuses it, or speaks no gRPC."
                        break
                    await channel.wait_for_state_change(state)
                else:
                    return ""
        except (TimeoutError, aio.UsageError):  # closed meanwhile
            pass
        finally:
            self._connecting = None
        self._discard(FINISH_TIME)  # its last connection may still carry calls, of a server that shuts down
        return fault

    def _channel(self) -> aio.Channel:
        if not self.open:
            self.open.append(self._new_channel())
        return self.open[0]

    def _new_channel(self) -> aio.Channel:
        target, options = target_of(self._endpoint), channel_options(self._address, self._settings)
        if self._address.scheme == "grpcs":
            return aio.secure_channel(target, credentials(self._settings), options=options)
        return aio.insecure_channel(target, options=options)

    def method(self, name: str, takes_stream: bool, streams: bool) -> Any:
        """What starts a call of a method."""
        key = name, takes_stream, streams
        found = self._methods.get(key)
        if found is None:
            channel = self._channel()
            if takes_stream:
                found = (channel.stream_stream if streams else channel.stream_unary)(name)
            else:
                found = (channel.unary_stream if streams else channel.unary_unary)(name)
            self._methods[key] = found
        return found

    # The end

    def end_call(self) -> None:
        """A call has ended."""
        if self.closing and not self._owner.in_flight:
            self._discard()

    def close_idle(self, before: float) -> None:
        """Close the channel if it is idle since before this time."""
        if self._used <= before and not self._owner.in_flight:
            self._discard()

    def close(self) -> None:
        """Close now, or when the last call ends."""
        self.closing = True
        self.close_idle(monotonic())

    def abort(self) -> None:
        """Close for good; calls under way fail."""
        self.closing = self._is_aborted = True
        if self._connecting is not None:
            self._connecting.cancel()
        for closing in self._closing:
            closing.cancel()
        self._discard()

    def _discard(self, seconds: float = 0.0) -> None:
        """Close the channel; its calls may end within `seconds`."""
        self._methods.clear()
        while self.open:
            closing = asyncio.get_running_loop().create_task(_close(self.open.pop(), seconds))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._keep(closing)


async def _close(channel: aio.Channel, seconds: float) -> None:
    try:
        await channel.close(seconds)
    finally:
        await channel.close()  # nothing happens if it is closed


def target_of(endpoint: Endpoint) -> str:
    """The endpoint as grpcio names it."""
    if endpoint.family == UNIX:
        return f"unix:{endpoint.target}"
    host, port = endpoint.target[:2]
    if endpoint.family == socket.AF_INET:
        return f"ipv4:{host}:{port}"
    return f"ipv6:[{host.replace('%', '%25')}]:{port}"


def channel_options(address: Address, settings: Settings) -> list[tuple[str, Any]]:
    """The options of a channel (gRPC's "channel arguments")."""
    options: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),  # else channels share connections, and their pauses
        ("grpc.enable_http_proxy", 0),
        ("grpc.default_authority", address.authority),
        ("grpc.max_send_message_length", settings.max_body_size),
        ("grpc.max_receive_message_length", settings.max_result_size),
        ("grpc.keepalive_time_ms", int(KEEP_ALIVE * 1000)),
        ("grpc.keepalive_timeout_ms", int(PING_TIMEOUT * 1000)),
        ("grpc.max_metadata_size", settings.max_header_size),
        ("grpc.absolute_max_metadata_size", settings.max_header_size),
    ]
    if address.scheme == "grpcs":
        options.append(("grpc.ssl_target_name_override", address.host))  # the target is an IP address
    return options


def credentials(settings: Settings) -> grpc.ChannelCredentials:
    """The TLS of calls over gRPC: the callee's certificate is always verified."""
    authorities = settings.services_ca or ssl.get_default_verify_paths().cafile or ""
    certificate, key = settings.services_cert, settings.services_key or settings.services_cert
    return grpc.ssl_channel_credentials(
        _content(authorities), _content(key), _content(certificate) if certificate else None
    )


def _content(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()
