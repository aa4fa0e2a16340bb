"""Behind a proxy: client, scheme and host of a request as trusted proxies report them; the prefix of the paths.

An ignored or invalid report changes nothing: the client is then the peer of the connection, the proxy. The response is
not a 400, which would harm other clients: a proxy may take a backend that responds so for broken, or keep its
connection for the next client. So a client can always look like a proxy: grant nothing to the address of a proxy.
"""

from __future__ import annotations

import re
from copy import copy
from functools import lru_cache, partial
from ipaddress import IPv4Network, IPv6Network, ip_network

from ..core.requests import Peer, Request
from ..core.responses import Handler, Response
from ..core.setting_values import SettingsError
from ..core.settings import ROOT_PATH
from .forwarded import Trust, forwarded, ip_of

KNOWN_ADDRESSES = 1024
"""Addresses whose trust is cached."""


def behind_proxies(handler: Handler, peers: str, root_path: str = "") -> Handler:
    """The handler, with client, scheme and host of each request from a trusted proxy as that proxy reports them.

    Args:
        handler: The handler.
        peers: The trusted proxies: addresses, networks and the word `unix`, as in "10.0.0.0/8 ::1 unix". The forwarding
            headers of other peers are ignored.
        root_path: The prefix that a proxy removes from the paths; a trusted proxy may send another one
            (`X-Forwarded-Prefix`).

    Raises:
        SettingsError: A word of `peers` is invalid.
    """
    is_trusted = trust(peers)
    trusts_unix = "unix" in peers.split()

    async def handle(request: Request) -> Response:
        peer, prefix = request.peer, root_path
        if is_trusted(peer.client[0]) if isinstance(peer.client, tuple) else trusts_unix and _is_unix(peer):
            found = forwarded(request, is_trusted)
            reported = request.headers.get("x-forwarded-prefix", "").rstrip("/")
            prefix = reported if ROOT_PATH.fullmatch(reported) else root_path
            client, scheme = found.client or peer.client, found.scheme or peer.scheme
            request.peer = peer._replace(client=client, scheme=scheme, host=found.host or "", root_path=prefix)
        elif prefix:
            request.peer = peer._replace(root_path=prefix)
        if not prefix:
            return await handler(request)
        return _with_prefix(prefix, await handler(request))

    return handle


def _is_unix(peer: Peer) -> bool:
    return isinstance(peer.server, (str, bytes))  # the client's end has no address, as that of a disconnected client


def _with_prefix(root_path: str, response: Response) -> Response:
    """The response, with the prefix before each path of this service in its `Location` and `Link`.

    A path that begins with the prefix comes from `url_for`, and is kept. The response may be cached: change a copy.
    """
    if any(name in _PATHS for name, _ in response.headers):
        response = copy(response)
        response.headers = [
            (name, _PATHS[name].sub(partial(_prefixed, root_path), value)) if name in _PATHS else (name, value)
            for name, value in response.headers
        ]
    return response


def _prefixed(root_path: str, match: re.Match[str]) -> str:
    path = match[0]
    return path if path == root_path or path.startswith(root_path + "/") else root_path + path


# Absolute paths begin with one slash; `//` begins another host. In a Link they are between < and > (RFC 8288, 3).
_PATHS = {"location": re.compile("^/(?!/)[^?#]*"), "link": re.compile("(?<=<)/(?!/)[^?#>]*(?=[^>]*>)")}


def trust(peers: str) -> Trust:
    """A function that returns whether an address is one of `peers`. SettingsError for an invalid word."""
    networks = [_checked_network(word) for word in peers.split() if word != "unix"]

    @lru_cache(maxsize=KNOWN_ADDRESSES)
    def is_trusted(address: str) -> bool:
        ip = ip_of(address.partition("%")[0])  # without the zone, which is a network interface of this machine
        return ip is not None and any(ip in network for network in networks)

    return is_trusted


def _checked_network(word: str) -> IPv4Network | IPv6Network:
    network = _network(word)
    if network is None or "%" in word:  # a network would ignore the zone
        raise SettingsError(f"proxy_headers takes IP addresses, networks and the word unix: {_remedy(word)}")
    if network.version == 6 and network.network_address.ipv4_mapped:
        raise SettingsError(f"proxy_headers has {word}, an IPv4-mapped IPv6 address; write it as IPv4")
    return network


def _remedy(word: str) -> str:
    """The error of an invalid word, and a valid replacement."""
    if word == "*":
        return "'*' is none of these; to trust every client, write 0.0.0.0/0 ::/0 unix"
    if "," in word:
        return f"{word!r} has commas; separate with spaces"
    if "%" in word:
        return f"{word!r} has a zone; remove the % and the text after it"
    if word.lower().startswith("unix"):
        return f"{word!r} is not valid; write unix, which stands for all clients of the Unix socket"
    network = _network(word, strict=False)
    if network is None:
        return f"{word!r} is none of these; instead of a host name, write its address, as in 10.0.0.7"
    address = word.partition("/")[0]
    return f"{word!r} has host bits set; write {network} for the network, or {address} for this one address"


def _network(word: str, strict: bool = True) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(word, strict)
    except ValueError:
        return None
