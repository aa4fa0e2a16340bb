"""A worker's end of its channel: it receives jobs, and sends results, errors, streams and log records.

An exception may be raised between any two steps of the interpreter, by a signal handler or a thread that a job has left
behind. So the bytes that the kernel has read or written are noted in the same step: `deque.extend(map(call, ...))` is
one step. A frame that has been started is finished before anything else is written, and no job gets two ends.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
import threading
from array import array
from collections import deque
from itertools import islice, repeat
from typing import Any

from ..core import forks
from . import leftovers
from .arena import BIG, Arena
from .frames import (
    FRAME,
    LENGTHS,
    BodyInUse,
    ErrorText,
    Head,
    JobEnd,
    JobError,
    JobHead,
    LogRecord,
    Pickled,
    Report,
    Result,
    encode,
    frame,
    job_decoder,
)
from .memory import held_bytes
from .program import WorkerOptions
from .server_signals import signals_left_to_server

MAX_INTERRUPTIONS = 1000
"""Exceptions in a row that may interrupt the writing of one frame: no timer and no thread raises more."""

_CLOSED_ERRORS = {errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN, errno.ESHUTDOWN}

_NO_DESCRIPTORS = array("i")
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_TWO_DESCRIPTORS = socket.CMSG_SPACE(2 * struct.calcsize("i"))


def is_closed_error(error: BaseException) -> bool:
    """Whether the error means that the channel is closed."""
    return isinstance(error, OSError) and error.errno in _CLOSED_ERRORS


class WorkerChannel:
    """A worker's socket, and the arena for its next big result. `job_meta`: the type of the meta of its jobs."""

    def __init__(self, sock: socket.socket, arena: Arena | None, options: WorkerOptions, job_meta: Any = Any) -> None:
        sock.settimeout(None)  # a module may have called socket.setdefaulttimeout
        self.socket = sock
        self._send = sock.send
        self.arena = arena
        self._decode = job_decoder(job_meta)
        self.job: tuple[JobHead, bytes | memoryview] | None = None  # with its body
        self.interruption: BaseException | None = None  # of the current job
        self.ended = 0  # number of the last job whose end is sent
        self.is_asking = False  # an answer of the server is still to come, or was read in part
        # A read that waits is also woken when the server has read the last result (Linux, unix_write_space), and would
        # take the CPU from the server for nothing. A poll for data is not.
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        self._wait_for_data = poller.poll
        self._receipts = map(sock.recvmsg, repeat(65536), repeat(_TWO_DESCRIPTORS), repeat(_CLOSE_ON_EXEC))
        self._inbox: deque[Any] = deque()  # results of recvmsg, for the frame that is being read
        self._partial: tuple[bytearray, list[int]] | None = None  # a longer frame, and the bytes of each read
        self._outgoing: tuple[bytes, int] | None = None  # the frame that is being written, and the job that it ends
        self._written: deque[int] = deque()  # the bytes of each of its writes
        self.body: memoryview | None = None  # of the current job, if it came in an arena
        self._mapping: Any = None
        self.max_result_size = options.max_result_size
        self._small = min(BIG, options.max_result_size + 1)
        self._measures_memory = options.measures_memory
        self._lock = threading.Lock()  # other threads of the worker may log
        forks.detach_in_child(self, WorkerChannel._in_forked_child)
        self._pid = os.getpid()

    def _in_forked_child(self) -> list[int]:
        """In a process that a job has forked: signals end it, like a child of any program. Returns what to close."""
        forks.reset_signals(signals_left_to_server() + leftovers.discarded())
        return [self.socket.fileno()]

    # Read

    def receive(self) -> tuple[JobHead, bytes | memoryview] | None:
        """Wait for the next job. None at the end of the channel."""
        inbox = self._inbox
        if not inbox:
            self._wait_for_data()
            inbox.extend(islice(self._receipts, 1))
        data, ancillary, _, _ = inbox[0]
        descriptors = array("i", ancillary[0][2]) if ancillary else _NO_DESCRIPTORS
        while len(data) < LENGTHS:
            more = self.socket.recv(65536)
            if not more:
                return None
            data += more
        head_length, body_length = FRAME.unpack_from(data)
        body_start = LENGTHS + head_length
        total = body_start + body_length
        if len(data) < total:
            whole = self._receive_rest(data, total)
            if whole is None:
                return None
            data = whole
        head = self._decode(data[LENGTHS:body_start])
        body: bytes | memoryview = data[body_start:]
        if head.size:
            try:
                body = self.body = Arena(descriptors.pop(0), head.size).view()
            except (IndexError, OSError):  # no descriptor is free to receive or to map the body
                self._send_out_of_descriptors(head.number)
                return None
            self._mapping = self.body.obj
        if descriptors:
            self.arena = Arena(descriptors[0])
        self.ended = 0
        self.job = job = head, body
        inbox.clear()
        self._partial = None
        return job

    def _send_out_of_descriptors(self, number: int) -> None:
        """Report that the job's body cannot be read. The server replaces this worker, whose descriptors have leaked."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        text = (
            f"the worker cannot receive the job's body: all its {limit} file descriptors are open. An earlier job has "
            "left files or sockets open: close them, or raise the limit (ulimit -n)"
        )
        self.send_end(JobError(number, ErrorText("OSError", text, ""), True))

    def _receive_rest(self, data: bytes, total: int) -> bytes | None:
        if self._partial is None:
            start = bytearray(total)
            start[: len(data)] = data
            self._partial = start, [len(data)]
        whole, counts = self._partial
        view = memoryview(whole)
        while (position := sum(counts)) < total:
            counts.extend(map(self.socket.recv_into, (view[position:],)))
            if not counts[-1]:
                return None
        return bytes(whole)

    def discard_frame(self) -> None:
        """Discard the job's frame, whose reading may have been interrupted, and the interruption."""
        self._inbox.clear()
        self._partial = self.interruption = None

    # Write

    def send(self, head: Head, body: bytes = b"") -> None:
        self.send_frame(frame(head, len(body)) + body)

    def send_frame(self, whole: bytes) -> None:
        """Send an encoded frame that ends no job."""
        with self._lock:
            self._write(whole, 0)

    def send_end(self, head: JobEnd, body: Any = b"") -> None:
        """Send a frame that ends its job."""
        if self._measures_memory:
            head.memory = held_bytes()
        data = encode(head)  # as `frame`: this is on the path of each job
        with self._lock:
            self._write(FRAME.pack(len(data), len(body)) + data + body, head.number)

    def _write(self, data: bytes, ends: int) -> None:
        if forks.in_child:  # a forked child has returned into our code, and the channel is its parent's
            forks.end_child()
        if self._outgoing is not None:
            self.flush(ends_job=True)
        written = self._written
        written.clear()
        self._outgoing = data, ends
        interruption: BaseException | None = None
        try:  # usually one write is enough; `flush` does the same, however often it is interrupted
            written.extend(map(self._send, (data,)))
            if written[0] == len(data):
                self.ended = ends or self.ended
                self._outgoing = None
                return
        except BaseException as error:
            if is_closed_error(error):
                raise
            interruption = error
        self.flush(ends_job=ends > 0, interruption=interruption)

    def flush(self, *, ends_job: bool, interruption: BaseException | None = None) -> None:
        """Finish the frame that has been started. Then raise the first interruption, unless the frame ends its job."""
        interruptions = [interruption] if interruption else []
        written = self._written
        while (outgoing := self._outgoing) is not None:
            try:
                data, ends = outgoing
                if (sent := sum(written)) < len(data):
                    written.extend(map(self._send, (memoryview(data)[sent:] if sent else data,)))
                if sum(written) == len(data):
                    self.ended = ends or self.ended
                    self._outgoing = None
            except BaseException as error:
                if is_closed_error(error) or len(interruptions) > MAX_INTERRUPTIONS:
                    raise
                interruptions.append(error)
        if interruptions and not ends_job:
            raise interruptions[0]

    def send_result(self, head: Result[Any] | Pickled, first: Any, *more: Any) -> None:
        """Send the pieces as one body: in the arena, if there is one and they are big."""
        if not more and len(first) < self._small:
            if self.body is not None:
                first = self._copied(first)
                self.release_body(head.number)
            self.send_end(head, first)
            return
        length = len(first) + sum(map(len, more))
        if length > self.max_result_size:
            raise ValueError(
                f"the result has {length} bytes; max_result_size is {self.max_result_size}: "
                "raise it, or yield the result in pieces"
            )
        if self.arena is None:
            self.send_end(head, b"".join((first, *more)))
            return
        self.arena.size = 0  # an earlier write may have failed half-way
        for piece in (first, *more):
            self.arena.write(piece)
        if isinstance(first, memoryview):
            first.release()
        self.release_body(head.number)
        head.size = length
        self.send_end(head)
        self.arena = None  # it belongs to the server now

    @staticmethod
    def _copied(content: Any) -> bytes:
        """A copy of a small result, which may be a part of the body."""
        copy = bytes(content)
        if isinstance(content, memoryview):
            content.release()
        return copy

    def release_body(self, number: int) -> None:
        """Release the job's body. If the job still refers to it, report that: its arena must not be used again."""
        body, self.body = self.body, None
        if body is not None:
            try:
                body.release()
                self._mapping.close()
            except BufferError:
                self.send(BodyInUse(number))
            self._mapping = None

    def send_log(self, fields: object) -> None:
        """Send a log record between other frames. OSError as `send_aside`."""
        self.send_aside(LogRecord(fields))

    def send_report(self, fields: object) -> None:
        """Send a report of the program between other frames. OSError as `send_aside`."""
        self.send_aside(Report(fields))

    def send_aside(self, head: LogRecord | Report) -> None:
        """Send a frame between those of the job, from any thread.

        Raises:
            OSError: In a forked child, where the channel is closed; in a signal handler that has interrupted the
                writing of a frame, and would wait for itself.
        """
        if os.getpid() != self._pid or not self._lock.acquire(timeout=1.0):
            raise BlockingIOError("the channel belongs to another process, or is in use")
        try:
            self._write(frame(head), 0)
        finally:
            self._lock.release()

    def is_closed(self) -> bool:
        try:
            self.socket.getpeername()
        except OSError:
            return True
        return False
