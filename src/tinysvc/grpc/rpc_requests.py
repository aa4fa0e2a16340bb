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
from urllib.parse import unquote

from ..core.requests import Peer

KNOWN_PEERS = 4096
"""Peers whose address is kept as it was read: one for each connection."""

Metadata = tuple[tuple[str, str | bytes], ...]

_NAME = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")

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
        elif _VALUE.fullmatch(value):
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
