"""Reports the state of the service to systemd (sd_notify(3)), for units with Type=notify or notify-reload."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

_address = ""
_last_state = ""


def take_notify_socket(environ: MutableMapping[str, str]) -> None:
    """Keep the address of systemd's socket, and remove its variable: a child must not report for the service."""
    global _address
    _address = environ.pop("NOTIFY_SOCKET", "")


def notify(state: str) -> None:
    """Send a state, as in "READY=1", if systemd has passed a socket."""
    global _last_state
    _last_state = state
    if not _address:
        return
    address = "\0" + _address[1:] if _address.startswith("@") else _address  # an abstract address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())


def notify_reload(reload: Callable[[], object]) -> None:
    """Call `reload`, and report its beginning and end if the last state was READY=1: see Type=notify-reload."""
    reports = _last_state == "READY=1"
    if reports:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    reload()
    if reports:
        notify("READY=1")
