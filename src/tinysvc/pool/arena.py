"""Arenas: anonymous memory that two processes share, for bodies too big to be copied through a socket and the loop.

An arena is a file without a name (memfd on Linux, an unlinked temporary file elsewhere) that lives as long as its
descriptors: no crash leaves anything behind in `/dev/shm` or `/tmp`. Its descriptor is sent over a Unix socket.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress

BIG = 256 * 1024
"""Bytes from which a body is sent in an arena. Below, a copy costs less than a descriptor and its page faults."""

KEPT_SIZE, KEPT_ARENAS = 16 * 1024 * 1024, 16
"""Bytes of the largest arena that is kept for reuse, and the number of kept arenas. New memory for 16 MiB takes four
times as long as writing the 16 MiB, and freeing it takes as long again, 2 ms at once."""

SPARE = 0.25
"""Seconds without need after which one kept arena is freed."""


class Arena:
    """Bytes of an anonymous file: written once from its start, then mapped by their reader.

    The process that receives the descriptor cannot harm the process that created the file: it is sealed against
    shrinking, so each mapping stays valid.
    """

    __slots__ = ("descriptor", "size")

    def __init__(self, descriptor: int | None = None, size: int = 0) -> None:
        self.descriptor = -1  # for __del__, if no file can be created
        self.descriptor = anonymous_file() if descriptor is None else descriptor
        self.size = size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`. OSError if no memory is free."""
        view = memoryview(data).cast("B")
        while view:
            count = os.pwrite(self.descriptor, view, self.size)
            self.size += count
            view = view[count:]

    def view(self) -> memoryview:
        """The bytes, mapped without a copy. The mapping lives as long as the view, also after `close`."""
        if not self.size:
            return memoryview(b"")
        return memoryview(mmap.mmap(self.descriptor, self.size))

    def close(self) -> None:
        """Close the descriptor. Further calls do nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Arena {self.size} bytes>"


def anonymous_file() -> int:
    """The descriptor of a new file without a name. OSError, with both reasons, if the system refuses both kinds."""
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
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)  # a shrunken file raises SIGBUS when read
    return descriptor


class Arenas:
    """Arenas kept for reuse, with their memory. A process that has held the descriptor of an arena may also read its
    later content.
    """

    def __init__(self) -> None:
        self._kept: list[Arena] = []
        self._spare = 0  # how many were not needed since the last trim
        self._closed = False

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> Arena:
        """An empty arena, kept or new. OSError if none can be created."""
        if not self._kept:
            return Arena()
        arena = self._kept.pop()
        self._spare = min(self._spare, len(self._kept))
        return arena

    def trim(self) -> bool:
        """Close one arena that was not needed since the last call. False if there was none."""
        has_spare, self._spare = self._spare > 0, len(self._kept)
        if has_spare:
            self.take().close()
        return has_spare

    def give_back(self, arena: Arena) -> None:
        """Keep an arena that no process reads or writes any more, or close it."""
        if self._closed or arena.size > KEPT_SIZE or len(self._kept) >= KEPT_ARENAS:
            arena.close()
        else:
            arena.size = 0
            self._kept.append(arena)

    def close(self) -> None:
        """Close all arenas, also those that are given back later."""
        self._closed = True
        while self._kept:
            self._kept.pop().close()
