"""The headers in which proxies report the client: `Forwarded` (RFC 7239), and `X-Forwarded-For`, -Proto, -Host, -Port.

Each proxy appends the address of its peer to the right of a list. The proxy that is connected to this server has
written the rightmost address; anyone may have written the others. So the list is read from the right while its
addresses are trusted. The first address that is not trusted is the client. The rest is ignored: a client cannot
invalidate the proxies' reports by writing invalid elements before them.

A proxy that writes one of the two kinds of headers may pass on the other kind as its client wrote it, and a request
does not show which kind the proxy wrote. So if both are present and differ, both are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from ..core.headers import TOKEN
from ..core.requests import Request
from ..wire.heads import host_is_valid

MAX_PROXIES = 32
"""Addresses of a list that are read. No real chain of proxies is longer; the limit bounds the work."""

Trust = Callable[[str], bool]
"""Whether the address of a peer is that of a trusted proxy."""


class Forwarded(NamedTuple):
    """The client, scheme and host of a request as the first trusted proxy saw it. None: unknown or invalid."""

    client: tuple[str, int] | None = None
    scheme: str | None = None
    host: str | None = None


def forwarded(request: Request, is_trusted: Trust) -> Forwarded:
    """The report of the proxies, for a request from a trusted proxy."""
    headers, reports = request.headers, []
    if lines := headers.get_all("forwarded"):
        reports.append(_by_forwarded(lines, is_trusted))
    if any(lists := [_list(headers.get_all(name)) for name in _X_FORWARDED]):
        reports.append(_by_x_forwarded(lists, request, is_trusted))
    return reports[0] if reports and reports[0] == reports[-1] else Forwarded()


def ip_of(address: str) -> IPv4Address | IPv6Address | None:
    """The IP address of a text; None if it is invalid.

    An IPv4-mapped IPv6 address, as a dual-stack socket reports it, becomes the IPv4 address.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if ip.version == 6 else ip


# RFC 7239, 4, and white space around a semicolon, which some proxies write. RFC 9110, 5.6.2 and 5.6.4.
_NAME = f"{TOKEN.pattern}+"  # possessive
_QUOTED = r"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"
_PAIRS = re.compile(rf'({_NAME})=(?:({_NAME})|"({_QUOTED})")')
_PAIR = rf'(?:{_NAME}=(?:{_NAME}|"{_QUOTED}")[ \t]*+)?+'
_ELEMENT = re.compile(rf"[ \t]*+{_PAIR}(?:;[ \t]*+{_PAIR})*+")
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 7239, 6: a port may be an invented name. `unknown` and invented names are not addresses.
_IPV4, _IPV6, _PORT = (
    r"([0-9.]{7,15})",
    r"\[([0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,40})\]",
    r"(?:([0-9]{1,5})|_[A-Za-z0-9._-]++)",
)
_NODE = re.compile(rf"(?:{_IPV4}|{_IPV6})(?::{_PORT})?")
_X_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _by_forwarded(lines: Sequence[str], is_trusted: Trust) -> Forwarded:
    """Read `Forwarded`. One element is the report of one proxy: scheme and host belong to its address."""
    found = Forwarded()
    for element in _elements(",".join(lines)):
        if element is None:
            return Forwarded()
        found = Forwarded(
            _node(element.get("for", "")), _scheme(element.get("proto", "")), _host(element.get("host", ""))
        )
        if found.client is None or not is_trusted(found.client[0]):
            break
    return found


def _elements(text: str) -> Iterator[dict[str, str] | None]:
    """The elements of a Forwarded header, from the right; None at an invalid element, or after MAX_PROXIES.

    A comma inside a quoted string does not separate elements. Even so, the shortest text that is a valid element is the
    right one: the text behind a comma inside quotes has a closing quote without an opening one, and is not valid.
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
    return parameters if len(parameters) == len(pairs) else None  # no parameter may come twice (RFC 7239, 4)


def _by_x_forwarded(lists: Sequence[Sequence[str]], request: Request, is_trusted: Trust) -> Forwarded:
    """Read the `X-Forwarded-*` headers: four lists, whose elements are matched by their place from the right."""
    addresses, schemes, hosts, ports = lists
    client, hop = None, 0
    for hop, address in enumerate(reversed(addresses), 1):
        if hop > MAX_PROXIES:
            return Forwarded()
        client = _node(f"[{address}]" if address.count(":") > 1 and address[0] != "[" else address)
        if client is None or not is_trusted(client[0]):
            break
    scheme, host = _scheme(_at_hop(schemes, hop)), _host(_at_hop(hosts, hop))
    return Forwarded(client, scheme, _with_port(host, _at_hop(ports, hop), scheme or request.scheme, request.host))


def _list(lines: Sequence[str]) -> list[str]:
    return [part.strip(" \t") for part in ",".join(lines).split(",") if part.strip(" \t")]


def _at_hop(values: Sequence[str], hop: int) -> str:
    """The value at this place from the right; a single value is valid for all places."""
    if len(values) < 2:
        return values[0] if values else ""
    return values[-max(hop, 1)] if hop <= len(values) else ""


def _with_port(host: str | None, port: str, scheme: str, own_host: str) -> str | None:
    """The host with the reported port, unless the host has a port or the port is the default of the scheme."""
    name = host or own_host
    if not name or ":" in name.rpartition("]")[2] or not re.fullmatch("[1-9][0-9]{0,4}", port):
        return host
    return host if int(port) > 65535 or int(port) == _DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def _node(text: str) -> tuple[str, int] | None:
    """Address and port of a node (RFC 7239, 6); port 0 if there is none. None if it is not an address."""
    node = _NODE.fullmatch(text)
    ip, port = (ip_of(node[1] or node[2]), int(node[3] or 0)) if node else (None, 0)
    return (str(ip), port) if ip is not None and port <= 65535 else None


def _scheme(text: str) -> str | None:
    return _SCHEMES.get(text.lower())


def _host(text: str) -> str | None:
    return text if host_is_valid(text.encode("latin-1")) else None
