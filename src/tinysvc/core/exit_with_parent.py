"""A process that ends when the process at the other end of a socket ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys


def exit_with_parent(control: socket.socket, on: bool) -> None:
    """Let the kernel end this process by SIGIO when the other end closes.

    While the author's modules load, nothing reads the socket.
    """
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(control, fcntl.F_GETFL)
        fcntl.fcntl(control, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
        if on:
            other_end = select.poll()
            other_end.register(control, 0)  # POLLHUP comes unasked
            if other_end.poll(0):  # it closed before we looked: no signal will come
                signal.raise_signal(signal.SIGIO)
