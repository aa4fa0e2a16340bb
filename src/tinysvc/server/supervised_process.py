"""A server process as its supervisor sees it: its link, its last reports, and when its successor may start."""

from __future__ import annotations

import socket
import time

from .server_process import ProcessFailed

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a process that has died again is replaced; after its first death it is replaced at once."""

HEALTHY = 10.0
"""Seconds of life after which the death of a process counts as its first one again."""


class ServerProcess:
    """One of the server processes, and its successors; `pid` is 0 while it does not run."""

    def __init__(self) -> None:
        self.pid = 0
        self.deaths = 0  # in a row, without HEALTHY seconds of life between them
        self.due = 0.0  # the earliest time of its next start
        self.begin()

    def begin(self) -> None:
        """Forget the last process: the next one is about to be forked."""
        self.since = time.monotonic()
        self.received = b""  # an incomplete line
        self.outgoing = b""  # what its link did not take yet
        self.ready = False
        self.failure: ProcessFailed | None = None

    def started(self, pid: int, link: socket.socket) -> None:
        self.pid = self.reporter = pid
        self.link = link

    def pause(self) -> float:
        """Seconds until it is replaced, called when it has died."""
        if time.monotonic() - self.since >= HEALTHY:
            self.deaths = 0
        self.deaths += 1
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.deaths - 2, 20)) if self.deaths > 1 else 0.0
