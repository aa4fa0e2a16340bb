"""Memory without a name that two processes share: for bodies too big to be copied through a socket and the event loop.

An arena is a file that exists nowhere but in the descriptors that hold it (memfd on Linux, an unlinked temporary file
elsewhere): nothing is left in `/dev/shm` or `/tmp`, whoever dies. Its descriptor travels over a Unix socket.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

BIG = 256 * 1024
"""Bytes from which a body travels in an arena. Below it a copy costs less than a descriptor and its page faults."""


KEPT_SIZE, KEPT_ARENAS = 16 * 1024 * 1024, 16
"""The largest arena that is kept for use again, and how many are at most. New memory for 16 MiB costs four times what
it costs to write them, and giving it back as much again, 2 ms at once."""

SPARE = 0.25
"""Seconds in which a kept arena was not needed before it is given back; of several, one in each."""


class Arena:
    """Bytes behind a descriptor: written once from the front, then mapped by whoever reads them.

    One who made it cannot be harmed by one it was lent to: it never shrinks, so a mapping of it stays valid.
    """

    __slots__ = ("descriptor", "size")

    def __init__(self, descriptor: int | None = None, size: int = 0) -> None:
        self.descriptor = -1  # for __del__, where none can be had
        self.descriptor = anonymous_file() if descriptor is None else descriptor
        self.size = size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. OSError where there is no more memory."""
        view = memoryview(data).cast("B")
        while view:
            count = os.pwrite(self.descriptor, view, self.size)
            self.size += count
            view = view[count:]

    def view(self) -> memoryview:
        """Its bytes, mapped and not copied. The mapping lives as long as the view, also when the arena is closed."""
        if not self.size:
            return memoryview(b"")
        return memoryview(mmap.mmap(self.descriptor, self.size))

    def close(self) -> None:
        """Close the descriptor; once is enough."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Arena {self.size} bytes>"


def anonymous_file() -> int:
    """A descriptor of a new file without a name. OSError, with both reasons, where the system allows none."""
    try:
        return _memory_file()
    except OSError as error:
        refusal = f"memfd_create failed ({error.strerror or error})"
    import tempfile

    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    except OSError as error:
        remedy = "allow memfd_create, or mount a writable /tmp, or name a writable folder in TMPDIR"
        where = f"{refusal}, and so did a temporary file ({error.strerror or error}); {remedy}"
        raise OSError(error.errno, f"no anonymous file can be made: {where}") from None


def _memory_file() -> int:
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "this system has none")
    try:
        descriptor = os.memfd_create("tinysvc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return os.memfd_create("tinysvc", os.MFD_CLOEXEC)  # a kernel or a sandbox without seals
    import fcntl

    with suppress(OSError):  # a sandbox refuses seals
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a mapping of what was cut off is a SIGBUS
    return descriptor


class Arenas:
    """Arenas kept for use again, whose memory is there already. Whoever was lent one may see what comes next."""

    def __init__(self) -> None:
        self._kept: list[Arena] = []
        self._spare = 0  # how many of them nobody has needed since the last trim
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> Arena:
        """An empty arena. OSError if there is none and none can be made."""
        if not self._kept:
            return Arena()
        arena = self._kept.pop()
        self._spare = min(self._spare, len(self._kept))
        return arena

    def trim(self) -> bool:
        """Close one that nobody has needed since the last call. False if there was none."""
        has_spare, self._spare = self._spare > 0, len(self._kept)
        if has_spare:
            self.take().close()
        return has_spare

    def give_back(self, arena: Arena) -> None:
        """Nobody reads or writes it any more."""
        if self._closed or arena.size > KEPT_SIZE or len(self._kept) >= KEPT_ARENAS:
            arena.close()
        else:
            arena.size = 0
            self._kept.append(arena)

    def close(self) -> None:
        """Close all, also those that are given back later."""
        self._closed = True
        while self._kept:
            self._kept.pop().close()
