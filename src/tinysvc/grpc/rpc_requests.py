"""Metadata and headers: an RPC as a Request, and the headers of its response as metadata.

Metadata are headers (HTTP/2): names in lower case, values of printable ASCII. The value of a name that ends in "-bin"
is bytes; a header keeps them as base64, which is how they travel.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ..core.headers import Headers
from ..core.requests import Peer, Request

KNOWN_PEERS = 4096
"""Peers whose address is kept as it was read: one for each connection."""

Metadata = tuple[tuple[str, str | bytes], ...]

_NAME = re.compile(r"[0-9a-z_.-]+")

_OF_HTTP = frozenset(
    {
        *("accept-ranges", "age", "cache-control", "connection", "content-disposition", "content-encoding"),
        *("content-language", "content-length", "content-range", "content-type", "date", "etag", "expires"),
        *("keep-alive", "last-modified", "location", "referrer-policy", "retry-after", "server", "set-cookie"),
        *("strict-transport-security", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary"),
        "www-authenticate",
    }
)
_PREFIXES_OF_HTTP = ("access-control-", "content-security-", "cross-origin-", "grpc-", "permissions-policy", "x-frame-")
"""Headers that say something about HTTP's own matters, or to a browser, and names that belong to gRPC."""


class RpcRequest(Request):
    """The request of an RPC. Its headers and its peer are made when they are asked for: most handlers ask for neither.

    Args:
        path: Path of the route.
        message: The message; for a method that takes a stream, the iterator over them.
        metadata: The metadata that the client has sent.
        address: The client, as grpcio names it; "" if it is not known.
        scheme: "https" with TLS, else "http".
        time_limit: Point in time (`time.monotonic`) of the client's deadline.
        served_by: As of a Request.
    """

    __slots__ = ("_address", "_metadata", "_scheme")

    def __init__(
        self,
        path: str,
        message: Any,
        metadata: Metadata,
        address: str,
        scheme: str,
        time_limit: float | None,
        served_by: Any,
    ) -> None:
        # As Request does it, without the attributes `headers` and `peer`: see __getattr__.
        self.method = "POST"
        self.raw_path = path
        self.raw_query = ""
        self._body = message
        self._body_state = 0
        self._query = None
        self.path_params = None
        self._id = ""
        self.served_by = served_by
        self.form_data = None
        self.resources = None
        self.on_disconnect = None
        self.time_limit = time_limit
        self._metadata = metadata
        self._address = address
        self._scheme = scheme

    if not TYPE_CHECKING:  # it makes attributes that Request declares

        def __getattr__(self, name: str) -> Any:
            """Make an attribute that has no value yet."""
            if name == "headers":
                self.headers = made = Headers(header_lines(self._metadata))
            elif name == "peer":
                address, scheme = self._address, self._scheme
                self.peer = made = peer_of(address, scheme) if address else Peer(None, None, scheme)
            else:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return made


def header_lines(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    """The metadata of an RPC as the lines of request headers."""
    return [
        (name.encode(), value.encode() if type(value) is str else b64encode(value))  # type: ignore[arg-type]
        for name, value in metadata
    ]


def metadata_of(headers: Iterable[tuple[str, str]]) -> Metadata:
    """The headers of a response as metadata, without those that have no meaning outside HTTP."""
    found: list[tuple[str, str | bytes]] = []
    for header, value in headers:
        name = _metadata_name(header)
        if not name:
            continue
        if name.endswith("-bin"):
            try:
                found.append((name, b64decode(value + "=" * (-len(value) % 4), validate=True)))
            except BadBase64:
                continue  # no metadata can hold it
        elif value.isascii() and value.isprintable():
            found.append((name, value))
    return tuple(found)


@lru_cache(maxsize=1024)
def _metadata_name(header: str) -> str:
    """The name in metadata; "" if the header has no meaning there."""
    name = header.lower()
    is_left_out = name in _OF_HTTP or name.startswith(_PREFIXES_OF_HTTP) or not _NAME.fullmatch(name)
    return "" if is_left_out else name


@lru_cache(maxsize=KNOWN_PEERS)
def peer_of(address: str, scheme: str) -> Peer:
    """Both ends of the connection: grpcio names the client, as in "ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000"."""
    kind, _, rest = unquote(address).partition(":")
    if kind == "unix":
        return Peer(rest, rest, scheme)  # mostly "": the client's end has no address
    host, _, port = rest.rpartition(":")
    return Peer((host.strip("[]"), int(port)) if port.isdecimal() else rest, None, scheme)
