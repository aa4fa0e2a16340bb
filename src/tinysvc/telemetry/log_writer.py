"""A log handler that never waits for the reader of the log.

    a record ──> a line ──> written at once                     the pipe has room
                       └──> the queue ──thread──> the pipe      it is full: the reader is slow, or has stopped
                                  └──> dropped and counted      the queue is full, too

A terminal that is paused by Ctrl-S, a log collector that hangs: a write to such a pipe blocks, and a server that waits
for it serves no request. Here the first attempt never blocks. A line that finds the pipe full goes into the queue, and
a thread, which may block, writes the queue. While lines wait, further lines queue up behind them: the order is kept.
The number of dropped lines is written when there is room again.

How the first attempt avoids blocking depends on the descriptor:

    pipe, terminal    it is opened again with O_NONBLOCK. To set the flag on the descriptor itself would change it for
                      all processes that share it, such as a shell: their prints would fail.
    socket            MSG_DONTWAIT (systemd's journal)
    file              written as usual: it has no reader. (A second description would have a position of its own.)
    otherwise         the thread writes everything, for example where the user may not open the pipe again
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from select import POLLOUT, poll
from time import monotonic

from ..core.log_records import unformattable

MAX_QUEUED = 4 * 1024 * 1024
"""Bytes of lines that wait for the reader: ten to forty thousand lines."""

FLUSH_TIME = 1.0
"""Seconds that the end of the process waits for a reader to take the queued lines."""

BATCH = 64 * 1024
"""Bytes that the thread writes at a time: an empty pipe takes as many."""

log = logging.getLogger("tinysvc.log")

Attempt = Callable[[bytes], int]
"""Writes bytes as far as that does not block, and returns their number."""


class LogWriter(logging.Handler):
    """Writes log lines to a descriptor.

    Args:
        descriptor: The descriptor, such as 2 for standard error.
        max_queued: Bytes that may wait for the reader.
    """

    def __init__(self, descriptor: int = 2, *, max_queued: int = MAX_QUEUED) -> None:
        super().__init__()
        self.dropped = 0  # lines, since the start
        self._descriptor = descriptor
        self._max_queued = max_queued
        self._attempt = non_blocking(descriptor)
        self._begin()

    def _begin(self) -> None:
        """Start without queued lines: also in a forked child, which has no thread. Its parent writes the lines."""
        self._process = os.getpid()
        self._queue: deque[bytes] = deque()
        self._queued = 0  # bytes in the queue, and in the batch that the thread writes
        self._unreported = 0  # lines dropped since the last report
        self._changed = threading.Condition(self.lock)
        self._has_thread = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            line = self.format(unformattable(record, error))
        self._write(_encoded(line))

    def _write(self, line: bytes) -> None:
        """Write or queue the line. The caller holds the handler's lock, as `handle` does."""
        if self._process != os.getpid():
            self._begin()
        if not self._queued:
            try:
                line = line[self._attempt(line) :]
            except BlockingIOError:
                pass
            except OSError:  # the reader has closed the pipe, or no space is left
                self._drop()
                return
            if not line:
                if self._unreported:
                    self._report_dropped()
                return
        elif self._queued + len(line) > self._max_queued:
            self._drop()
            return
        elif self._unreported:
            self._report_dropped()
        self._append(line)

    def _append(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued += len(data)
        if self._has_thread:
            self._changed.notify_all()
            return
        try:
            threading.Thread(target=self._write_queue, name="tinysvc log", daemon=True).start()
            self._has_thread = True
        except RuntimeError:  # the limit of threads is reached
            self._queue.clear()
            self._queued = 0
            self._drop()

    def _drop(self, lines: int = 1) -> None:
        self.dropped += lines
        self._unreported += lines

    def _report_dropped(self) -> None:
        """Queue a line with the number of dropped lines. It stands where they are missing."""
        count, self._unreported = self._unreported, 0
        lines = "line of the log was" if count == 1 else "lines of the log were"
        text = f"%d {lines} dropped here: its reader is too slow, or was gone"
        record = logging.LogRecord(log.name, logging.WARNING, __file__, 0, text, (count,), None)
        with suppress(Exception):  # of the author's formatter
            self._append(_encoded(self.format(record)))

    # The thread

    def _write_queue(self) -> None:
        """Write what is queued, as fast as the reader takes it."""
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.notify_all()  # `flush` may wait
                    self._changed.wait()
                batch = self._take_batch()
            lost = 0 if _write_all(self._descriptor, batch) else batch.count(b"\n")
            with self._changed:
                self._queued -= len(batch)
                if lost:
                    self._drop(lost)
                elif self._unreported and not self._queue:
                    self._report_dropped()

    def _take_batch(self) -> bytes:
        """Some lines; at least one."""
        lines = [self._queue.popleft()]
        size = len(lines[0])
        while self._queue and size + len(self._queue[0]) <= BATCH:
            lines.append(self._queue.popleft())
            size += len(lines[-1])
        return b"".join(lines)

    # The end

    def flush(self) -> None:
        """Wait until the queue is written, for FLUSH_TIME at most."""
        if self._process != os.getpid():
            return
        deadline = monotonic() + FLUSH_TIME
        with self._changed:
            while self._queued and (left := deadline - monotonic()) > 0:
                self._changed.wait(left)


def _encoded(line: str) -> bytes:
    return line.encode(errors="backslashreplace") + b"\n"


def _write_all(descriptor: int, data: bytes) -> bool:
    """Write all of the data, and wait for the reader. False if it has closed the pipe."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # a process that shares the descriptor has made it non-blocking
            room = poll()
            room.register(descriptor, POLLOUT)
            room.poll()
        except OSError:
            return False
    return True


def non_blocking(descriptor: int) -> Attempt:
    """The way to write to the descriptor without blocking; see the head of this file."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return lambda data: os.write(descriptor, data)
        if stat.S_ISSOCK(mode):
            return _to_socket(descriptor)
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return _to_pipe(descriptor)
    except OSError:
        pass  # it cannot be opened again: not ours, or no /proc
    return _never


def _to_pipe(descriptor: int) -> Attempt:
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    opened = _Descriptor(os.open(f"/proc/self/fd/{descriptor}", flags))
    return lambda data: os.write(opened.number, data)


class _Descriptor:
    """A descriptor that is closed with its last user. The handler writes until the interpreter ends."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


def _to_socket(descriptor: int) -> Attempt:
    opened = _Descriptor(os.dup(descriptor))

    def attempt(data: bytes) -> int:
        sock = socket.socket(fileno=opened.number)
        try:
            return sock.send(data, socket.MSG_DONTWAIT)
        finally:
            sock.detach()

    return attempt


def _never(data: bytes) -> int:
    return 0
