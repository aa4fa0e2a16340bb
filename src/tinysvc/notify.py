"""What systemd is told of the service (sd_notify(3)), for units with Type=notify."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from contextlib import suppress

_address = ""


def take_address(environ: MutableMapping[str, str]) -> None:
    """Keep where to send; nothing that we start finds the variable that says so."""
    global _address
    _address = environ.pop("NOTIFY_SOCKET", "")


def notify(state: str) -> None:
    """Send a state as in "READY=1", if anybody wants to know it."""
    if not _address:
        return
    address = "\0" + _address[1:] if _address.startswith("@") else _address  # of the abstract namespace
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
