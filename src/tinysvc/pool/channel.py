"""The server's end of a worker's channel: frames in both directions, read and written by the event loop. No policy."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import cast

from msgspec import ValidationError

from ..core.forks import detach_in_child
from ..core.stack_dumps import DUMP_LIMIT, StackDump, dump_file
from .arena import Arena, Arenas
from .frames import FRAME, LENGTHS, FromWorker
from .program import SharedMemory

SEPARATE_WRITE = 64 * 1024
"""Bytes from which a body is written separately from the start of its frame, instead of being copied behind it."""

MAX_CRASH_FILE = 32 * 1024
"""Bytes of a crashed worker's Python stack that reach the log."""

DUMP_INTERVAL = 0.01
"""Seconds between two looks at a dump of stacks that the worker writes."""

MAX_HEAD = 4 * 1024 * 1024
"""Bytes of a frame's head: a batch has all its headers there, an error its texts."""


class Channel(asyncio.Protocol):
    """One worker's socket.

    Args:
        sock: The server's end of the socketpair.
        decode: Decodes the head of a frame: frames.worker_decoder.
        on_frame: Called with the head and the body of each frame.
        on_closed: Called when the channel is closed, with the protocol error of the worker, or "".
        limit: Bytes that the body of a frame may have.
        shared: The memory that the worker shares with the server; None if there is none.
    """

    def __init__(
        self,
        sock: socket.socket,
        decode: Callable[[bytes], FromWorker],
        on_frame: Callable[[FromWorker, bytes], None],
        on_closed: Callable[[str], None],
        limit: int,
        shared: SharedMemory | None = None,
    ) -> None:
        self._socket = sock
        self._decode = decode
        self._on_frame = on_frame
        self._on_closed = on_closed
        self._limit = limit
        self._shared = shared
        self._shared_file: Arena | None = None
        self._detach: Callable[[], object]  # ends the use of the shared file
        self._closed = False
        detach_in_child(self, lambda channel: [channel._socket.fileno()])
        self.transport: asyncio.Transport
        self.arena: Arena | None = None  # where the worker may put a big result
        self.arenas = Arenas()  # earlier ones, whose results have been read
        self._crash_file = -1  # where the worker writes its Python stack when it crashes
        self._dumped = 0  # bytes of the crash file that the worker wrote before, and lived
        self._error = ""
        self._pieces: list[bytes] = []
        self._held = 0  # bytes in _pieces
        self._wanted = LENGTHS  # bytes that complete the present frame, or its lengths

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        if self._closed:
            transport.close()

    def worker_files(self) -> list[int]:
        """New files for the worker, as descriptors: an arena for its first big result, its crash file, its shared file.

        They are valid until `close_for_good`.
        """
        self.arena, self._crash_file = Arena(), dump_file()
        files = [self.arena.descriptor, self._crash_file]
        if self._shared is not None:
            file = Arena()
            os.ftruncate(file.descriptor, self._shared.size)
            self._detach = self._shared.in_server(file.descriptor)
            self._shared_file = file
            files.append(file.descriptor)
        return files

    async def stacks(self, write_stacks: Callable[[], None]) -> str:
        """The stacks of all threads of the worker, which `write_stacks` makes it write. "" if none come in time."""
        if self._crash_file < 0:
            return ""
        file = os.dup(self._crash_file)  # the worker may end meanwhile
        try:
            dump, end = StackDump(file), monotonic() + DUMP_LIMIT
            write_stacks()
            while not dump.is_complete():
                if monotonic() > end:
                    return ""
                await asyncio.sleep(DUMP_INTERVAL)
            self._dumped = os.fstat(file).st_size
            return dump.text()
        finally:
            os.close(file)

    def close(self) -> None:
        """Close our end. An idle worker then closes its resources and exits."""
        self._closed = True
        if self.arena is not None:
            self.arena.close()
        self.arenas.close()
        if hasattr(self, "transport"):
            self.transport.close()

    def shut_down(self) -> None:
        """As `close`, also where a forked child of the server holds our end open."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.close()

    def close_for_good(self) -> str:
        """Close our end after the worker has ended. Returns the content of its crash file."""
        self.close()
        if self._shared_file is not None:
            self._detach()
            self._shared_file.close()
        if self._crash_file < 0:
            return ""
        content = os.pread(self._crash_file, MAX_CRASH_FILE, self._dumped)
        os.close(self._crash_file)
        self._crash_file = -1
        return content.decode(errors="replace")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return
            data = b"".join(self._pieces)
            self._pieces = []
        position, length = 0, len(data)
        self._wanted = LENGTHS
        while length - position >= LENGTHS:
            head_length, body_length = FRAME.unpack_from(data, position)
            if head_length > MAX_HEAD or body_length > self._limit:
                self.fail(f"sent {head_length + body_length} bytes; max_result_size is {self._limit}")
                return
            body_start = position + LENGTHS + head_length
            end = body_start + body_length
            if length < end:
                self._wanted = end - position
                break
            try:
                head = self._decode(data[position + LENGTHS : body_start])
            except ValidationError as error:
                self.fail(f"sent a frame with a head of the wrong form: {error}")
                return
            except Exception:
                self.fail("sent a frame that is not MessagePack")
                return
            position = end
            self._on_frame(head, data[body_start:end])
            if self._error:
                return  # discard all frames after a protocol error
        if position < length:
            self._pieces, self._held = [data[position:]], length - position

    def fail(self, error: str) -> None:
        """Close the channel because of a protocol error of the worker."""
        self._error = error
        self._pieces = []
        self.transport.abort()

    def send(self, start: bytes, body: bytes, body_arena: Arena | None) -> None:
        """Send a job: the start of its frame (frames.frame), and its body or the arena of its body.

        With it goes a new arena for a big result, if the last one is used.
        """
        if body_arena is not None or self.arena is None:
            try:
                start = self._with_descriptors(start, body_arena)
            except OSError as error:
                asyncio.get_running_loop().call_soon(self._on_closed, f"could not be given a job: {error}")
                return
        if len(body) < SEPARATE_WRITE:
            self.transport.write(start + body)
        else:
            self.transport.write(start)
            self.transport.write(body)

    def _with_descriptors(self, start: bytes, body_arena: Arena | None) -> bytes:
        """Send descriptors with the start of a frame. Returns the rest of it.

        The transport cannot send descriptors, so they are sent with the start of the frame on the socket itself. This
        keeps the order, as the worker has ended all earlier jobs: the transport's buffer is empty.

        Raises:
            OSError: The buffer is not empty, as the worker has ended a job before it received it.
        """
        descriptors = [] if body_arena is None else [body_arena.descriptor]
        if self.arena is None:
            try:
                self.arena = self.arenas.take()
                descriptors.append(self.arena.descriptor)
            except OSError:
                pass  # no descriptor is free: a big result comes through the socket
        if not descriptors:
            return start
        if self.transport.get_write_buffer_size():
            raise OSError("it ended a job that it had not yet received")
        return start[socket.send_fds(self._socket, [start], descriptors) :]

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_closed(self._error)
