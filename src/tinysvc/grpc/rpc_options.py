"""The options of the gRPC server (gRPC's "channel arguments"): limits, keep-alive, compression.

Most follow from settings of the HTTP server, so that one limit holds for both.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..core.settings import Settings

MAX_STREAMS = 1000
"""RPCs of one connection at a time; its client queues more of them. Envoy's default, for the same reason, is 100; a
client of grpcio has one connection for all its RPCs. grpcio counts a stream until its RPC is freed, a moment longer
than the client does: a client that has so many RPCs all the time sees some refused (REFUSED_STREAM: they were not
begun). Without that (grpc.http.overload_protection), a client that resets its streams at once makes the RPCs of others
fail."""

MAX_PENDING = 10_000
"""Calls that have arrived and that the server has not taken yet; grpcio ends further ones of all clients with
CANCELLED. Its default is about 1,000: a few clients with many calls at a time then make the calls of all others fail. A
call that waits takes about 10 KiB, and the part of its message that has arrived, up to 64 KiB."""

IDLE = 300.0
"""Seconds after which a connection without an RPC is closed, in order (GOAWAY). A client connects again by itself."""

MIN_PING_INTERVAL = 10.0
"""Seconds between two pings that a client may send; the third ping that is too early closes its connection
(ENHANCE_YOUR_CALM). grpcio's default, 5 minutes, disconnects clients with usual keep-alive settings."""

NEVER = 2**31 - 1
"""The value of an interval that never ends."""


def server_options(settings: Settings, body_limits: Iterable[int]) -> list[tuple[str, int]]:
    """The options for a server with these settings.

    Args:
        settings: The server's settings.
        body_limits: Bytes that a message may have, by route.
    """
    ping = _milliseconds(settings.ping_interval) or NEVER
    return [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", max(body_limits, default=settings.max_body_size)),
        ("grpc.max_send_message_length", -1),  # as over HTTP; max_result_size limits those of workers
        ("grpc.max_metadata_size", settings.max_header_size),
        ("grpc.absolute_max_metadata_size", settings.max_header_size),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.server.max_pending_requests", MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.header_timeout) or NEVER),
        ("grpc.max_connection_idle_ms", _milliseconds(IDLE)),
        ("grpc.keepalive_time_ms", ping),
        ("grpc.keepalive_timeout_ms", _milliseconds(settings.ping_timeout) or NEVER),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(MIN_PING_INTERVAL)),
    ]


def _milliseconds(seconds: float) -> int:
    return min(int(seconds * 1000), NEVER)
