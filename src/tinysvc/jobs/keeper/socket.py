"""The Unix socket of the keeper, also below a folder whose path is too long for one.

The kernel limits the path of a Unix socket to 108 bytes (macOS: 104). On Linux a longer path is shortened through a
descriptor of its folder: /proc/self/fd/7/keeper.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from ...core.errors import ConfigurationError

SOCKET = "keeper"
"""Name of the socket in the folder of the servers."""

MAX_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of the path of a Unix socket, without the zero byte at its end (unix(7))."""

BACKLOG = 128
"""Processes that may wait to be connected; there are rarely more than cores."""


def listening_socket(folder: Path) -> socket.socket:
    """A listening socket in the folder, in place of the last keeper's. Only the holder of the lock calls it."""
    (folder / SOCKET).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _at(folder, sock.bind)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def connected_socket(folder: Path) -> socket.socket:
    """A connection to the keeper. OSError if there is none at the moment."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        _at(folder, sock.connect)
    except BaseException:
        sock.close()
        raise
    return sock


def _at(folder: Path, call: Callable[[str], object]) -> None:
    """Call a method of a socket with the address in the folder."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) <= MAX_PATH:
        call(path)
        return
    if not os.path.isdir("/proc/self/fd"):
        raise ConfigurationError(
            f"the path {path} is too long for a Unix socket: {len(os.fsencode(path))} bytes, at most {MAX_PATH}; "
            "choose a shorter path for the store"
        )
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{descriptor}/{SOCKET}")
    finally:
        os.close(descriptor)
