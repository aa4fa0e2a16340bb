"""The standard streams of the processes: always open, and in workers written line by line."""

from __future__ import annotations

import io
import os
import sys
from _thread import get_ident, start_new_thread
from collections.abc import Iterator
from select import PIPE_BUF
from time import monotonic, sleep
from typing import Any

from .leftovers import at_end_of_job

OLD_TEXT = 0.1
"""Seconds after which an unfinished line is written; it may take twice as long."""

MAX_LINE = 64 * 1024
"""Bytes of an unfinished line that are kept until its newline: an empty pipe takes as many in one write."""


def open_standard_streams() -> None:
    """Open /dev/null for each standard stream that the parent of this process has closed (a daemon, cron).

    Otherwise one of our sockets may get the number of a standard stream, and a print goes into it, or fails.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) == descriptor:  # the system returns the lowest free number
                os.set_inheritable(descriptor, True)  # for the forkserver
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for the life of the process


def write_whole_lines() -> None:
    """In a worker: make sys.stdout and sys.stderr write whole lines, so the lines of several workers do not mix.

    A stream that was closed, or that the author has replaced, stays as it is. A print to a pipe that has no reader
    waits, as in every program: the job's deadline ends it.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not None and stream is getattr(sys, f"__{name}__"):
            lines = WholeLines(descriptor, f"<{name}>")
            setattr(sys, name, io.TextIOWrapper(lines, "utf-8", "backslashreplace", write_through=True))


class WholeLines(io.BufferedIOBase):
    """A binary stream that writes whole lines, as many at a time as a pipe takes without mixing them with others.

    A print never fails a job: lines that cannot be written are dropped, and their number is written when writing works
    again. A carriage return ends a line, too. An unfinished line is written when it is flushed, when its job ends, and
    when it is OLD_TEXT old, which a thread watches: progress bars are visible in time. Closing the stream only flushes
    it: the next job prints, too.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        # Thread -> start time and text of its unfinished line. Without a lock, which a fork could leave locked.
        self._unfinished: dict[int, tuple[float, bytes]] = {}
        self._watched_in = 0  # pid of the process that has a thread for old lines
        self._lost = 0  # lines

    def write(self, data: Any) -> int:
        thread, new = get_ident(), memoryview(data).tobytes()
        since, old = self._unfinished.pop(thread, (0.0, b""))
        whole = old + new
        end = max(whole.rfind(mark, len(old)) for mark in (b"\n", b"\r")) + 1
        if len(whole) - end > MAX_LINE:
            end = len(whole)
        if end < len(whole):
            self._unfinished[thread] = monotonic() if end or not old else since, whole[end:]
            at_end_of_job.add(self.flush)
            self._watch()
        self._put(whole[:end])
        return len(new)

    def _watch(self) -> None:
        if self._unfinished and self._watched_in != os.getpid():
            self._watched_in = os.getpid()
            try:
                start_new_thread(self._write_old_lines, ())
            except RuntimeError:  # the limit of threads is reached: the line is written at the end of the job
                self._watched_in = 0

    def _write_old_lines(self) -> None:
        while self._unfinished:
            sleep(OLD_TEXT)
            for thread, (since, _) in list(self._unfinished.items()):
                if monotonic() - since >= OLD_TEXT:
                    self._flush(thread)
        self._watched_in = 0
        self._watch()  # another thread may have added a line in between

    def flush(self) -> None:
        for thread in list(self._unfinished):
            self._flush(thread)

    def _flush(self, thread: int) -> None:
        self._put(self._unfinished.pop(thread, (0.0, b""))[1])

    def close(self) -> None:
        self.flush()

    def _put(self, lines: bytes) -> None:
        for piece in _pieces(lines):
            if self._lost and self._write_all(b"(%d lines of a worker could not be written here)\n" % self._lost):
                self._lost = 0
            if not self._write_all(piece):
                self._lost += max(1, piece.count(b"\n"))

    def _write_all(self, piece: bytes) -> bool:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # closed, without a reader, full and non-blocking, or no space: no job fails for it
            return False
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Groups of whole lines of at most PIPE_BUF bytes, which a pipe takes in one write; a longer line alone."""
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + PIPE_BUF) + 1 or lines.find(b"\n", start) + 1 or len(lines)
        yield lines[start:end]
        start = end
