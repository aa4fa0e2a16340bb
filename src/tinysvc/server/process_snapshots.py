"""The metrics of all server processes: the supervisor's side of snapshot_exchange.py, without sockets.

It keeps the last snapshot of each process, as the bytes that came, and the sum of the counters of the dead ones. It
decodes nothing but the snapshot of a process that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

from .process_questions import passed_on

ROUND_LIMIT = 0.5
"""Seconds until a scrape goes on without a process that does not report: a handler may block its loop."""


class Round:
    """A scrape that waits for the reports of processes."""

    def __init__(self, number: int, asker: int, asked: Iterable[int]) -> None:
        self.number = number  # of the process that asks
        self.asker = asker
        self.missing = set(asked)
        self.deadline = monotonic() + ROUND_LIMIT


class ProcessSnapshots:
    """The state, and what is to be sent.

    Args:
        send: Sends a line to the process with this pid.
    """

    def __init__(self, send: Callable[[int, bytes], None]) -> None:
        self._send = send
        self._last: dict[int, bytes] = {}  # by pid
        self._ended = b""  # the counters of all processes that have ended
        self._rounds: dict[int, Round] = {}
        self._number = 0

    def receive(self, pid: int, line: bytes) -> bool:
        """A line of a process. False if it is none of these."""
        kind, _, rest = line.partition(b" ")
        if kind == b"snapshot":
            number, _, snapshot = rest.partition(b" ")
            self._last[pid] = snapshot
            self._note(int(number), pid)
        elif kind == b"gather":
            self._begin(pid, int(rest))
        elif (found := passed_on(pid, line)) is not None:
            self._send(*found)
        else:
            return False
        return True

    def _begin(self, asker: int, number: int) -> None:
        self._number += 1
        self._rounds[self._number] = Round(number, asker, self._last)
        for pid in list(self._last):
            self._send(pid, b"report %d" % self._number)
        self._finish(monotonic())

    def _note(self, number: int, pid: int) -> None:
        if number in self._rounds:
            self._rounds[number].missing.discard(pid)
            self._finish(monotonic())

    def _finish(self, now: float) -> None:
        """Answer the scrapes whose processes have all reported, or that have waited long enough."""
        for number, each in list(self._rounds.items()):
            if not each.missing or each.deadline <= now:
                del self._rounds[number]
                every = b",".join([*filter(None, (self._ended,)), *self._last.values()])
                self._send(each.asker, b"snapshots %d %b" % (each.number, every))

    def tick(self) -> None:
        """Time has passed."""
        self._finish(monotonic())

    def seconds_left(self) -> float:
        """Seconds until `tick` must be called; infinite if no scrape waits."""
        return min([each.deadline for each in self._rounds.values()], default=inf) - monotonic()

    def ended(self, pid: int) -> None:
        """A process has ended, and all that it has sent has been read: keep its counters."""
        if last := self._last.pop(pid, b""):
            from ..telemetry.snapshots import decode_snapshot, encode_snapshot, merge, without_gauges

            before = decode_snapshot(self._ended) if self._ended else []
            self._ended = encode_snapshot(merge([before, without_gauges(decode_snapshot(last))]))
        for number, each in list(self._rounds.items()):
            each.missing.discard(pid)
            if each.asker == pid:
                del self._rounds[number]
        self._finish(monotonic())
