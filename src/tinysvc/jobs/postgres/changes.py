"""Reports of committed changes: to the watchers in this process directly, to other processes by NOTIFY.

A notification only wakes: no code relies on one. While a connection is lost, notifications are lost with it; then the
watchers get `MISSED`, and read their records again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ..callbacks import Callbacks
from ..records import MISSED, Change, State

LONGEST = 7900
"""Bytes of one notification. PostgreSQL's limit is 8,000."""

_decoder = msgspec.json.Decoder(list[tuple[str, str, State, int]])


class Changes:
    """The watchers of one process."""

    def __init__(self) -> None:
        self._watchers: Callbacks[Change] = Callbacks()

    def watch(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback` for each change from now on. Returns the function that ends this."""
        return self._watchers.add(callback)

    def report(self, changes: Iterable[Change]) -> None:
        """Call the watchers soon, in order, but not from within the code that reports."""
        loop = asyncio.get_running_loop()
        for change in changes:
            loop.call_soon(self._watchers.call, change)

    def receive(self, payload: str) -> None:
        """Report the changes of a notification of another process."""
        try:
            self.report([Change(*each) for each in _decoder.decode(payload)])
        except msgspec.MsgspecError:  # of a newer version of tinysvc
            self.report([MISSED])


def payloads(changes: Sequence[Change]) -> list[str]:
    """The notifications that report these changes: as few as fit."""
    found: list[str] = []
    parts: list[bytes] = []
    size = 0
    for change in changes:
        part = msgspec.json.encode((change.id, change.route, change.state, change.version))
        if len(part) + 2 > LONGEST:  # a very long route: let the receivers read again
            part = msgspec.json.encode((MISSED.id, MISSED.route, MISSED.state, MISSED.version))
        if size + len(part) + 2 > LONGEST:
            found.append(_joined(parts))
            parts, size = [], 0
        parts.append(part)
        size += len(part) + 1
    return [*found, _joined(parts)] if parts else found


def _joined(parts: list[bytes]) -> str:
    return f"[{b','.join(parts).decode()}]"
