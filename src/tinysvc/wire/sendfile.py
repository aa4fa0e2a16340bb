"""Sends a file as the body of a response with sendfile: the kernel copies it, not this process.

uvloop has no sendfile. The head is written as usual. After its flush, the kernel sends from the file into a duplicate
descriptor of the socket: the event loop may watch the duplicate, but not the descriptor of a transport. Back-pressure,
the write deadline and a disconnect are handled by the connection, as for any other body: while the socket buffer is
full, writing is paused. With TLS, and on systems without sendfile, the file is read and written in pieces.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Protocol, cast

from ..core.responses import FileContent
from .bodies import COPY_SIZE

log = logging.getLogger("tinysvc")


class FileSink(Protocol):
    """The connection that sends a file."""

    transport: asyncio.Transport
    disconnected: bool
    write_paused: bool

    async def drain(self) -> None: ...


class FileCutShort(Exception):
    """The file is shorter than the declared length, or cannot be read to its end."""


async def send_file(sink: FileSink, content: FileContent) -> None:
    """Send the content after the bytes written before. ConnectionResetError for a disconnect; FileCutShort."""
    transport = sink.transport
    if transport.get_extra_info("sslcontext") is not None or not hasattr(os, "sendfile"):
        await _send_pieces(sink, content, 0)
        return
    await _flush(sink)
    try:
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
    except OSError:  # no free descriptor
        await _send_pieces(sink, content, 0)
        return
    try:
        sent = await _send_by_kernel(sink, content, descriptor)
    finally:
        os.close(descriptor)
    if sent < content.size:
        await _send_pieces(sink, content, sent)


async def _flush(sink: FileSink) -> None:
    """Wait until the kernel has all bytes that were written."""
    await asyncio.sleep(0)  # uvloop writes at the end of this turn
    _check_connected(sink)
    if sink.transport.get_write_buffer_size():
        low, high = sink.transport.get_write_buffer_limits()
        sink.transport.set_write_buffer_limits(0)
        await sink.drain()
        sink.transport.set_write_buffer_limits(high, low)


async def _send_by_kernel(sink: FileSink, content: FileContent, descriptor: int) -> int:
    """Return the bytes sent: fewer than all if the kernel, a sandbox or the file system does not support sendfile."""
    source, offset, left = content.file.fileno(), content.offset, content.size
    while left:
        try:
            sent = os.sendfile(descriptor, source, offset, min(left, COPY_SIZE))
        except BlockingIOError:
            await _wait_until_writable(sink, descriptor)
            continue
        except ConnectionError:
            raise
        except OSError as error:
            log.debug("sendfile failed (%s); the file is read and written instead", error)
            break
        if not sent:
            raise FileCutShort(f"the file is {left} bytes shorter than declared")
        offset += sent
        left -= sent
        if left:
            await asyncio.sleep(0)  # let other tasks run
            _check_connected(sink)
    return content.size - left


async def _wait_until_writable(sink: FileSink, descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    events = cast(asyncio.Protocol, sink.transport.get_protocol())

    def resume() -> None:
        loop.remove_writer(descriptor)
        if sink.write_paused:
            events.resume_writing()

    events.pause_writing()
    loop.add_writer(descriptor, resume)
    try:
        await sink.drain()
    finally:
        resume()


async def _send_pieces(sink: FileSink, content: FileContent, sent: int) -> None:
    source, offset, left = content.file.fileno(), content.offset + sent, content.size - sent
    while left:
        try:
            piece = os.pread(source, min(left, COPY_SIZE), offset)
        except OSError as error:  # such as a broken disk: not an error of the connection
            raise FileCutShort(f"the file cannot be read: {error}") from error
        if not piece:
            raise FileCutShort(f"the file is {left} bytes shorter than declared")
        _check_connected(sink)
        sink.transport.write(piece)
        offset += len(piece)
        left -= len(piece)
        if sink.write_paused:
            await sink.drain()
        else:
            await asyncio.sleep(0)


def _check_connected(sink: FileSink) -> None:
    if sink.disconnected:
        raise ConnectionResetError("the client disconnected in the middle of a file")
