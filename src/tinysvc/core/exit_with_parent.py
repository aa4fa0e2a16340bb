"""Ends a process when its parent, at the other end of a socket, ends."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys


def exit_with_parent(control: socket.socket, on: bool) -> None:
    """Let the kernel end this process with SIGIO when the other end of `control` closes. `on=False` stops that.

    It is needed while the author's modules are imported: nothing reads the socket then. Linux only.
    """
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(control, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(control, fcntl.F_GETFL)
        fcntl.fcntl(control, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
        if on:
            other_end = select.poll()
            other_end.register(control, 0)  # POLLHUP is reported without being requested
            if other_end.poll(0):  # the other end closed before this call: no signal will come
                signal.raise_signal(signal.SIGIO)
