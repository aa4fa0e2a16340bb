"""The lookup of an address: the endpoints behind it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from .address import Address
from .replica_connections import Endpoint

LOOKUP_TIMEOUT = 5.0
"""Seconds for one lookup, as long as the resolver waits for one name server (resolv.conf(5))."""


def known_endpoint(address: Address) -> Endpoint | None:
    """The endpoint of an address that needs no lookup: a Unix socket, or an IP address."""
    if address.is_unix:
        return Endpoint(socket.AF_UNIX, address.path)
    try:
        version = ipaddress.ip_address(address.host).version
    except ValueError:
        return None
    flags = socket.AI_NUMERICHOST
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    *_, target = socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM, 0, flags)[0]
    return Endpoint(family, target)


async def look_up(address: Address) -> list[Endpoint]:
    """The endpoints behind a name, in the order of the resolver. OSError if there are none."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOKUP_TIMEOUT):
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(Endpoint(family, target) for family, _, _, _, target in found))
