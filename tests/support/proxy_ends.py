"""A request from a proxy, as its handler sees it behind `behind_proxies`."""

from __future__ import annotations

import asyncio
from typing import Any

from tinysvc.core.headers import Headers
from tinysvc.core.requests import Peer, Request
from tinysvc.core.responses import Response
from tinysvc.web.proxies import behind_proxies

PROXIES = "10.0.0.0/8 2001:db8::/32 unix"
PROXY = ("10.0.0.1", 40000)
OWN = (PROXY, "http", "own.example")  # of the socket and the Host header


def seen(*lines: str, peer: Any = PROXY, server: Any = ("10.0.0.9", 80), host: str = "own.example") -> Any:
    """Client, scheme and host of a request with these headers, as its handler sees them."""
    found: list[Request] = []

    async def handler(request: Request) -> Response:
        found.append(request)
        return Response(None, 204)

    fields = [line.partition(":") for line in (f"Host: {host}", *lines)]
    headers = Headers([(name.lower().encode(), value.strip().encode("latin-1")) for name, _, value in fields])
    asyncio.run(
        _run(behind_proxies(handler, PROXIES), Request("GET", "/", headers=headers, peer=Peer(peer, server, "http")))
    )
    assert found[0].server == server
    assert found[0].headers is headers
    return found[0].client, found[0].scheme, found[0].host


async def _run(handler: Any, request: Request) -> None:
    assert (await handler(request)).status == 204


def only(client: Any) -> Any:
    return client, *OWN[1:]
