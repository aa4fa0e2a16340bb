"""The request of a durable job, as the store keeps it: from it, each attempt binds its arguments anew.

Only the head is in here; the body is kept beside it. Of the headers, those are kept that the handler reads, and those
that say how to read the body. Credentials that only a resource or middleware reads are not written to the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from ..binding.binder import Binder
from ..core.requests import Peer, Request

ALWAYS_KEPT = frozenset({"content-type", "content-encoding", "traceparent", "tracestate", "x-call-hops"})
"""Headers that say how to read the body, and the trace that the calls of the handler belong to."""

NEVER_KEPT = frozenset({"accept-encoding", "prefer", "idempotency-key", "request-timeout", "connect-timeout-ms"})
"""Headers for the response to the submission, which is over when the durable job runs."""


class StoredRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request without its body. Fields may be added, with defaults: older records are read by newer servers."""

    method: str
    path: str
    """Percent-encoded, as it was sent."""
    query: str = ""
    path_params: dict[str, str] | None = None
    headers: list[tuple[bytes, bytes]] = []
    client: Any = None
    server: Any = None
    scheme: str = "http"
    host: str = ""
    root_path: str = ""
    id: str = ""
    """Id of the request that submitted the durable job."""
    resources: bytes | None = None
    """The values of the request's resources that the handler takes, pickled."""

    @property
    def peer(self) -> Peer:
        """Both ends of the connection of the submission, which may be closed."""
        return Peer(self.client, self.server, self.scheme, self.host, self.root_path)


class RequestStorage:
    """Makes the stored form of the requests of one route.

    Args:
        binder: The binder of the handler.
    """

    def __init__(self, binder: Binder) -> None:
        self._names: Collection[str] | None = None  # all
        if not binder.takes_request:
            self._names = {name.lower() for name in binder.headers} | ALWAYS_KEPT

    def encoded(self, request: Request) -> bytes:
        """The stored form of a request, as msgpack."""
        peer = request.peer
        return encode_request(
            StoredRequest(
                method=request.method,
                path=request.raw_path,
                query=request.raw_query,
                path_params=request.path_params,
                headers=[line for line in request.headers.raw if self._keeps(line[0].decode("latin-1"))],
                client=peer.client,
                server=peer.server,
                scheme=peer.scheme,
                host=request.host,
                root_path=peer.root_path,
                id=request.id,
                resources=request.resources if isinstance(request.resources, bytes) else None,
            )
        )

    def _keeps(self, name: str) -> bool:
        return name not in NEVER_KEPT and (self._names is None or name in self._names)


def encode_request(stored: StoredRequest) -> bytes:
    """The request as msgpack."""
    return msgspec.msgpack.encode(stored)


_decode = msgspec.msgpack.Decoder(StoredRequest).decode


def decode_request(content: bytes) -> StoredRequest:
    """The request from its msgpack. ValueError if it is none."""
    return _decode(content)


def digest_of(request: Request, body: bytes, sent: Sequence[tuple[str, str]] = ()) -> bytes:
    """A hash of all parts of a request that the durable job depends on.

    Two requests with one `Idempotency-Key` must have the same.

    Args:
        request: The request.
        body: Its body.
        sent: Names and values of the headers and cookies that the handler takes.
    """
    found = sha256()
    for part in (
        request.method.encode(),
        request.raw_path.encode("latin-1", "replace"),
        request.raw_query.encode("latin-1", "replace"),
        request.headers.get("content-type", "").encode("latin-1", "replace"),
        body,
        *(text.encode("latin-1", "replace") for pair in sent for text in pair),
    ):
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()
