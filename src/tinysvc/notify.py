"""Report the state of the service to systemd (sd_notify(3)), for units with Type=notify."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from contextlib import suppress

_address = ""


def take_address(environ: MutableMapping[str, str]) -> None:
    """Keep the address of systemd's socket, and remove its variable: a child must not report for the service."""
    global _address
    _address = environ.pop("NOTIFY_SOCKET", "")


def notify(state: str) -> None:
    """Send a state, as in "READY=1", if systemd has asked for it."""
    if not _address:
        return
    address = "\0" + _address[1:] if _address.startswith("@") else _address  # of the abstract namespace
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
