"""The clients that may see the dashboard, and press its buttons.

Without a guard only a client on the same machine may. A proxy on the same machine would make every client look like
one, so a request that a proxy has passed on is refused; and so is one for another host, because a page of the Internet
can point its own name to 127.0.0.1 (DNS rebinding), and one that a page of another site makes: it could not read the
response, but open as many streams as there may be. A button needs a request of the page itself: a form of another site
cannot send one.
"""

from __future__ import annotations

from ipaddress import ip_address

from ..core.errors import HTTPError
from ..core.requests import Request

_PROXIED, _PROXIED_PREFIX = (b"forwarded", b"x-real-ip", b"via"), b"x-forwarded-"
"""Headers that a proxy adds (RFC 7239; RFC 9110, 7.6.3)."""

GUARD_REMEDY = "open it on this machine, for example through ssh -L, or name a resource that guards it: dashboard_guard"


def check_peer(request: Request) -> None:
    """HTTPError 403 unless the client is on this machine."""
    client = request.client
    if not isinstance(client, tuple) or not _is_loopback(str(client[0])):
        raise HTTPError(403, f"The dashboard is for clients on the machine of the server; {GUARD_REMEDY}.")
    if any(name in _PROXIED or name.startswith(_PROXIED_PREFIX) for name, _ in request.headers.raw):
        raise HTTPError(403, f"The dashboard is not served through a proxy; {GUARD_REMEDY}.")
    host = _name_of(request.host)
    if host != "localhost" and not _is_loopback(host):
        raise HTTPError(403, f"The dashboard is served as localhost only, not as {host[:100]!r}; {GUARD_REMEDY}.")
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise HTTPError(403, "The dashboard is for its own page, not for one of another site.")


def check_origin(request: Request) -> None:
    """HTTPError 403 unless a request with an effect comes from the page itself, or from no browser."""
    site, origin = request.headers.get("sec-fetch-site", "same-origin"), request.headers.get("origin")
    if site != "same-origin" or (origin is not None and origin.partition("://")[2] != request.host):
        raise HTTPError(403, "The buttons of the dashboard work on its own page only.")


def _name_of(host: str) -> str:
    """The host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
