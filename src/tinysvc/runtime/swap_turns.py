"""Server processes swap one after the other, and tell each other which versions they could not open.

Both by one file in the folder of the local copies: its lock (flock) is the turn, its content the failures. A process
that ends gives its turn back with its descriptors. Failures count for the processes of one start of the server only:
after an update of the code, the same version may open.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

from ..core.process_family import family

RETRY = 0.1
"""Seconds between two attempts to get the turn."""


class SwapTurns:
    """The turns of one service on this machine.

    Args:
        folder: The folder of the local copies.
        service: A text that is the same in all processes of the service.
    """

    def __init__(self, folder: Path, service: str) -> None:
        self._path = folder / f".swaps-{sha256(service.encode()).hexdigest()[:16]}.json"

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until no other process swaps; in the block, none does. Without a writable folder, do not wait."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield
            return
        try:
            while not _locked(descriptor):  # noqa: ASYNC110 - a lock of a file has no event
                await asyncio.sleep(RETRY)
            yield
        finally:
            os.close(descriptor)

    def failed(self) -> list[list[str]]:
        """The states that could not be opened, as lists of digests."""
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return []
        if not isinstance(content, dict) or content.get("family") != family():
            return []
        return [state for state in content.get("failed", ()) if isinstance(state, list)]

    def note_failed(self, state: Iterable[str]) -> None:
        """Add a state. Only in the own turn."""
        failed = self.failed()
        if sorted(state) not in failed:
            failed.append(sorted(state))
            with suppress(OSError):  # then the other processes find out by themselves
                self._path.write_text(json.dumps({"family": family(), "failed": failed}))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: do not wait
        return True
    return True
