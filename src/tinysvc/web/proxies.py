"""Behind a proxy: who the client is, by the word of peers that are trusted to know.

Each proxy adds the address that spoke to it to the right of a list. So what stands on the right was written by the
proxy that speaks to us, and what stands on the left by anybody. The list is read from the right for as long as its
addresses are trusted ones; the first that is not is the client. What is left of it is not looked at, so that no client
can spoil what the proxies say by writing nonsense before it.

There are two languages: `Forwarded` (RFC 7239), and the older `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`. A proxy
that speaks one may pass on the other as its client wrote it, and a request does not show which of the two that is. So
where both are there and do not say the very same, neither is believed.

What is not believed, or not understood, changes nothing: the client is then who opened the connection, the proxy. It is
no 400, as others would suffer for it: a proxy may take a backend that answers so for broken, or keep its connection for
the next client. But then a client may always look like a proxy: nothing may be granted for a proxy's address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ..core.headers import TOKEN
from ..core.requests import Peer, Request
from ..core.responses import Handler, Response
from ..core.settings import ROOT_PATH, SettingsError
from ..wire.heads import host_is_valid

MAX_PROXIES = 32
"""Addresses of a list that are looked at: nobody has so many proxies in a row, and it bounds the work."""

KNOWN_ADDRESSES = 1024
"""Addresses of which we remember whether they are trusted."""

Trust = Callable[[str], bool]


class Seen(NamedTuple):
    """What proxies say of a request as its client sent it. None: they do not say it, or nobody understands it."""

    client: tuple[str, int] | None = None
    scheme: str | None = None
    host: str | None = None


def behind_proxies(handler: Handler, peers: str, root_path: str = "") -> Handler:
    """`handler`, for requests whose client, scheme and host are those that the proxies `peers` have seen.

    `root_path` is the prefix that a proxy has taken off the paths, unless a trusted one names another.

    `peers` are addresses, networks and the word `unix`, as in "10.0.0.0/8 ::1 unix". From anybody else the headers of
    proxies are data and change nothing. SettingsError for a word that is none of these.
    """
    is_trusted = trust(peers)
    trusts_unix = "unix" in peers.split()

    async def handle(request: Request) -> Response:
        peer, prefix = request.peer, root_path
        if is_trusted(peer.client[0]) if isinstance(peer.client, tuple) else trusts_unix and _is_unix(peer):
            seen = what_proxies_say(request, is_trusted)
            request.peer = Peer(seen.client or peer.client, peer.server, seen.scheme or peer.scheme)
            if seen.host:
                request.host = seen.host
            said = request.headers.get("x-forwarded-prefix", "").rstrip("/")
            prefix = said if ROOT_PATH.fullmatch(said) else root_path
        if not prefix:
            return await handler(request)
        request.root_path = prefix
        return _within(prefix, await handler(request))

    return handle


def _is_unix(peer: Peer) -> bool:
    return isinstance(peer.server, (str, bytes))  # the client's end has no name, nor has that of a client who has left


def _within(root_path: str, response: Response) -> Response:
    """The response, with the prefix before each address of this service in its `Location` and `Link`.

    An address that begins with the prefix has it from `url_for`. The response itself may be cached: copy it.
    """
    if any(name in _ADDRESSES for name, _ in response.headers):
        response = copy(response)
        response.headers = [
            (name, _ADDRESSES[name].sub(partial(_prefixed, root_path), value)) if name in _ADDRESSES else (name, value)
            for name, value in response.headers
        ]
    return response


def _prefixed(root_path: str, address: re.Match[str]) -> str:
    path = address[0]
    return path if path == root_path or path.startswith(root_path + "/") else root_path + path


# Absolute paths: one slash, for `//` begins another host. A Link has each between < and > (RFC 8288, 3).
_ADDRESSES = {"location": re.compile("^/(?!/)[^?#]*"), "link": re.compile("(?<=<)/(?!/)[^?#>]*(?=[^>]*>)")}


# Who is trusted


def trust(peers: str) -> Trust:
    """A test for addresses, as text: whether it is one of `peers`. SettingsError for a word that cannot be a peer."""
    networks = [_network(word) for word in peers.split() if word != "unix"]

    @lru_cache(maxsize=KNOWN_ADDRESSES)
    def is_trusted(address: str) -> bool:
        ip = _plain(address.partition("%")[0])  # the zone is an interface of ours
        return ip is not None and any(ip in network for network in networks)

    return is_trusted


def _network(word: str) -> IPv4Network | IPv6Network:
    network = _network_of(word)
    if network is None or "%" in word:  # whose zone would be overlooked
        raise SettingsError(f"proxy_headers takes addresses, networks and the word unix; {_remedy(word)}")
    if network.version == 6 and network.network_address.ipv4_mapped:
        raise SettingsError(f"proxy_headers has {word}, an IPv4 address in the clothes of IPv6; write it as IPv4")
    return network


def _remedy(word: str) -> str:
    """What is wrong with the word, and what to write instead."""
    if word == "*":
        return "'*' is none; to let every client say who it is, write 0.0.0.0/0 ::/0 unix"
    if "," in word:
        return f"{word!r} has commas; write spaces"
    if "%" in word:
        return f"{word!r} names a zone; leave out the % and what follows"
    if word.lower().startswith("unix"):
        return f"{word!r} is not this word; write unix, which is for all who come by the Unix socket"
    network = _network_of(word, strict=False)
    if network is None:
        return f"{word!r} is none; a host's name is no address, so write its address, as in 10.0.0.7"
    address = word.partition("/")[0]
    return f"{word!r} has bits set for a host; write {network} for the network, or {address} for this one address"


def _network_of(word: str, strict: bool = True) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(word, strict)
    except ValueError:
        return None


def _plain(address: str) -> IPv4Address | IPv6Address | None:
    """The address; an IPv4 one where it is mapped, as a socket for both kinds has it. None if it is none."""
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if ip.version == 6 else ip


# What they say


def what_proxies_say(request: Request, is_trusted: Trust) -> Seen:
    """Of a request that comes from a trusted peer."""
    headers, said = request.headers, []
    if lines := headers.get_all("forwarded"):
        said.append(_by_forwarded(lines, is_trusted))
    if any(lists := [_list(headers.get_all(name)) for name in _X_FORWARDED]):
        said.append(_by_x_forwarded(lists, request, is_trusted))
    return said[0] if said and said[0] == said[-1] else Seen()


# RFC 7239, 4, with the white space around a semicolon that some write. RFC 9110, 5.6.2 and 5.6.4.
_NAME = f"{TOKEN.pattern}+"  # possessive
_QUOTED = r"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"
_PAIRS = re.compile(rf'({_NAME})=(?:({_NAME})|"({_QUOTED})")')
_PAIR = rf'(?:{_NAME}=(?:{_NAME}|"{_QUOTED}")[ \t]*+)?+'
_ELEMENT = re.compile(rf"[ \t]*+{_PAIR}(?:;[ \t]*+{_PAIR})*+")
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 7239, 6: a port may be made up. `unknown` and made-up names are no addresses.
_IPV4, _IPV6, _PORT = (
    r"([0-9.]{7,15})",
    r"\[([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,40})\]",
    r"(?:([0-9]{1,5})|_[A-Za-z0-9._-]++)",
)
_NODE = re.compile(rf"(?:{_IPV4}|{_IPV6})(?::{_PORT})?")
_X_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_USUAL_PORTS = {"http": 80, "https": 443}


def _by_forwarded(lines: Sequence[str], is_trusted: Trust) -> Seen:
    """An element is what one proxy saw, so the scheme and the host that the client used stand beside its address."""
    seen = Seen()
    for element in _elements(",".join(lines)):
        if element is None:
            return Seen()
        seen = Seen(_node(element.get("for", "")), _scheme(element.get("proto", "")), _host(element.get("host", "")))
        if seen.client is None or not is_trusted(seen.client[0]):
            break
    return seen


def _elements(text: str) -> Iterator[dict[str, str] | None]:
    """The elements of a Forwarded header, from the right; None where it is malformed, or has too many.

    A comma within a quoted string divides nothing. All the same the shortest piece that is an element is the right one:
    from such a comma on, a quote closes that was never opened.
    """
    start = end = len(text)
    for _ in range(MAX_PROXIES):
        start = text.rfind(",", 0, start)
        if _ELEMENT.fullmatch(text, start + 1, end):
            if pairs := _PAIRS.findall(text, start + 1, end):
                yield _parameters(pairs)
            end = start
        if start < 0:
            break
    if end >= 0:
        yield None


def _parameters(pairs: Sequence[tuple[str, str, str]]) -> dict[str, str] | None:
    parameters = {name.lower(): token or _QUOTED_PAIR.sub(r"\1", quoted) for name, token, quoted in pairs}
    return parameters if len(parameters) == len(pairs) else None  # none may stand twice (RFC 7239, 4)


def _by_x_forwarded(lists: Sequence[Sequence[str]], request: Request, is_trusted: Trust) -> Seen:
    """Four lists, of which nobody says that they belong together."""
    addresses, schemes, hosts, ports = lists
    client, hop = None, 0
    for hop, address in enumerate(reversed(addresses), 1):
        if hop > MAX_PROXIES:
            return Seen()
        client = _node(f"[{address}]" if address.count(":") > 1 and address[0] != "[" else address)
        if client is None or not is_trusted(client[0]):
            break
    scheme, host = _scheme(_beside(schemes, hop)), _host(_beside(hosts, hop))
    return Seen(client, scheme, _with_port(host, _beside(ports, hop), scheme or request.scheme, request.host))


def _list(lines: Sequence[str]) -> list[str]:
    return [part.strip(" \t") for part in ",".join(lines).split(",") if part.strip(" \t")]


def _beside(values: Sequence[str], hop: int) -> str:
    """What belongs to the address at this place from the right; what is said only once holds for all."""
    if len(values) < 2:
        return values[0] if values else ""
    return values[-max(hop, 1)] if hop <= len(values) else ""


def _with_port(host: str | None, port: str, scheme: str, own_host: str) -> str | None:
    """The host, and the port that the client used where the host does not name it and it is not the usual one."""
    name = host or own_host
    if not name or ":" in name.rpartition("]")[2] or not re.fullmatch("[1-9][0-9]{0,4}", port):
        return host
    return host if int(port) > 65535 or int(port) == _USUAL_PORTS.get(scheme) else f"{name}:{port}"


def _node(text: str) -> tuple[str, int] | None:
    node = _NODE.fullmatch(text)
    ip, port = (_plain(node[1] or node[2]), int(node[3] or 0)) if node else (None, 0)
    return (str(ip), port) if ip is not None and port <= 65535 else None


def _scheme(text: str) -> str | None:
    return _SCHEMES.get(text.lower())


def _host(text: str) -> str | None:
    return text if host_is_valid(text.encode("latin-1")) else None
