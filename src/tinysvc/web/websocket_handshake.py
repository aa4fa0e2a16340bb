"""The opening handshake of a WebSocket (RFC 6455, 4): an HTTP request is checked, a 101 response is made.

The `websockets` library does the checks of the RFC. This file adds the origin check, the choice of a subprotocol, and
the mapping of errors to HTTP responses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.errors import HTTPError
from ..core.requests import Request
from .websocket_protocol import UpgradableConnection

_frames_log = logging.getLogger("tinysvc.websocket.frames")
_frames_log.setLevel(logging.WARNING)  # at INFO the library logs a line for each closed socket


class Handshake:
    """A valid handshake request: its response, and the parser of the frames that follow.

    `frames` is a `websockets.protocol.Protocol` with the negotiated extensions.
    """

    def __init__(self, accept_key: str, extensions: str | None, frames: Any) -> None:
        self._accept_key = accept_key
        self._extensions = extensions
        self.frames = frames

    def response(self, subprotocol: str, headers: Iterable[tuple[str, str]]) -> bytes:
        """The head of the 101 response (RFC 6455, 4.2.2)."""
        lines = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", self._accept_key)]
        if self._extensions:
            lines.append(("sec-websocket-extensions", self._extensions))
        if subprotocol:
            lines.append(("sec-websocket-protocol", subprotocol))
        text = "".join(f"{name}: {value}\r\n" for name, value in [*lines, *headers])
        return f"HTTP/1.1 101 Switching Protocols\r\n{text}\r\n".encode("latin-1")


def check_handshake(request: Request) -> Handshake:
    """Check a request for a WebSocket (RFC 6455, 4.2.1).

    Raises:
        HTTPError: 426 if the request does not ask for a WebSocket, or for another version than 13; 400 if a header of
            the handshake is invalid.
    """
    from websockets.datastructures import Headers
    from websockets.exceptions import InvalidHandshake, InvalidUpgrade
    from websockets.http11 import Request as HandshakeRequest
    from websockets.protocol import Protocol as Frames
    from websockets.protocol import Side
    from websockets.server import ServerProtocol

    fields = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw])
    connection: UpgradableConnection | None = request.peer.upgrade
    protocol = ServerProtocol(extensions=_extensions(connection), logger=_frames_log)
    try:
        if connection is None or request.method != "GET":  # RFC 6455, 4.1
            raise InvalidUpgrade("Connection")
        accept_key, extensions, _ = protocol.process_request(HandshakeRequest(request.raw_path, fields))
    except InvalidUpgrade:
        text = (
            "This path accepts WebSocket connections only: send a GET request with 'Connection: Upgrade' and "
            "'Upgrade: websocket'."
        )
        raise HTTPError(426, text, headers=[("upgrade", "websocket")]) from None
    except InvalidHandshake as error:
        if request.headers.get("sec-websocket-version", "13") != "13":
            version = [("upgrade", "websocket"), ("sec-websocket-version", "13")]  # RFC 6455, 4.4
            raise HTTPError(426, "This server supports version 13 of WebSocket only.", headers=version) from None
        raise HTTPError(400, f"The WebSocket handshake is invalid: {error}.") from None
    frames = Frames(Side.SERVER, max_size=connection.settings.max_message_size, logger=_frames_log)
    frames.extensions = protocol.extensions
    return Handshake(accept_key, extensions, frames)


def _extensions(connection: UpgradableConnection | None) -> list[Any]:
    """permessage-deflate (RFC 7692), if the setting `compress` is on.

    Each message is compressed by itself: a window kept for each client would cost 300 KiB.
    """
    if connection is None or not connection.settings.compress:
        return []
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    return [ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]


def check_origin(request: Request, allowed: frozenset[str]) -> None:
    """Refuse a page of another origin, unless the origin is in `allowed`.

    A browser lets any page open a WebSocket to any host, and sends that host's cookies with it. Only the server can
    prevent this (RFC 6455, 10.2).

    Raises:
        HTTPError: 403 if the origin is neither this host nor in `allowed`.
    """
    origin = request.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    scheme, _, host = origin.lower().partition("://")
    own_host, page_host = _without_default_port(scheme, request.host.lower()), _without_default_port(scheme, host)
    if page_host != own_host and f"{scheme}://{page_host}" not in {_normal_origin(each) for each in allowed}:
        raise HTTPError(403, "A page of this origin may not open a WebSocket here.")


def _normal_origin(origin: str) -> str:
    scheme, mark, host = origin.lower().partition("://")
    return scheme + mark + _without_default_port(scheme, host)


def _without_default_port(scheme: str, host: str) -> str:
    """The host without the default port of its scheme: most browsers omit that port, some send it."""
    name, _, port = host.rpartition(":")
    return name if name and port in ("", _DEFAULT_PORTS.get(scheme)) else host


_DEFAULT_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}


def chosen_subprotocol(request: Request, supported: Sequence[str]) -> str:
    """The first of `supported` that the client offers; "" if `supported` is empty.

    Raises:
        HTTPError: 403 if the client offers none of them.
    """
    if not supported:
        return ""
    offered = [name.strip() for name in request.headers.get("sec-websocket-protocol", "").split(",")]
    for name in supported:
        if name in offered:
            return name
    raise HTTPError(403, f"The WebSocket needs one of these subprotocols: {', '.join(supported)}.")
