"""Reports the state of the service to systemd (sd_notify(3)), for units with Type=notify or notify-reload."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

_address = ""
_last_state = ""
_watchdog = 0.0


def take_notify_socket(environ: MutableMapping[str, str]) -> None:
    """Keep the address of systemd's socket, and remove its variables: a child must not report for the service."""
    global _address, _watchdog
    _address = environ.pop("NOTIFY_SOCKET", "")
    pid, microseconds = environ.pop("WATCHDOG_PID", ""), environ.pop("WATCHDOG_USEC", "")
    is_for_us = pid in ("", str(os.getpid())) and microseconds.isdecimal()
    _watchdog = int(microseconds) / 1e6 if _address and is_for_us else 0.0


def watchdog_time() -> float:
    """Seconds without a report after which systemd restarts the service (WatchdogSec=); 0.0: it never does."""
    return _watchdog


def notify(state: str) -> None:
    """Send a state, as in "READY=1", if systemd has passed a socket."""
    global _last_state
    _last_state = state
    _send(state)


def notify_alive() -> None:
    """Report to the watchdog of systemd, if the service is ready and does not end."""
    if _last_state == "READY=1":
        _send("WATCHDOG=1")


def _send(state: str) -> None:
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
