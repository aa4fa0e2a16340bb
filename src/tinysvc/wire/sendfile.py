"""A file as a response's body, sent by the kernel: its bytes never come into this process (sendfile).

uvloop has no sendfile of its own. So the head is written as ever, and once it is out the kernel is told to send from
the file into a second descriptor of the same socket, which the loop can watch without knowing that it is a transport's.
Back-pressure, the write deadline and a client that leaves are the connection's, as for any other body: while the
socket takes no more, writing is paused. Over TLS, and where there is no sendfile, pieces are read and written.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Protocol

from ..core.responses import FileContent
from .bodies import COPY_SIZE

log = logging.getLogger("tinysvc")


class FileSink(Protocol):
    """The connection that a file is sent by."""

    transport: asyncio.Transport
    gone: bool
    write_paused: bool

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    async def drain(self) -> None: ...


class FileCutShort(Exception):
    """The file cannot be read to the end that its length has promised."""


async def send_file(sink: FileSink, content: FileContent) -> None:
    """Send it all, behind what was written before. ConnectionResetError if the client leaves; FileCutShort."""
    transport = sink.transport
    if transport.get_extra_info("sslcontext") is not None or not hasattr(os, "sendfile"):
        await _send_pieces(sink, content, 0)
        return
    await _written_out(sink)
    try:
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
    except OSError:  # out of descriptors
        await _send_pieces(sink, content, 0)
        return
    try:
        sent = await _send_by_kernel(sink, content, descriptor)
    finally:
        os.close(descriptor)
    if sent < content.size:
        await _send_pieces(sink, content, sent)


async def _written_out(sink: FileSink) -> None:
    """Wait until nothing that was written is left in this process."""
    await asyncio.sleep(0)  # when uvloop writes what it was given
    _check_there(sink)
    if sink.transport.get_write_buffer_size():
        low, high = sink.transport.get_write_buffer_limits()
        sink.transport.set_write_buffer_limits(0)
        await sink.drain()
        sink.transport.set_write_buffer_limits(high, low)


async def _send_by_kernel(sink: FileSink, content: FileContent, descriptor: int) -> int:
    """How many bytes were sent: fewer than all where the kernel, a sandbox or the file system has no sendfile."""
    source, offset, left = content.file.fileno(), content.offset, content.size
    while left:
        try:
            sent = os.sendfile(descriptor, source, offset, min(left, COPY_SIZE))
        except BlockingIOError:
            await _writable(sink, descriptor)
            continue
        except ConnectionError:
            raise
        except OSError as error:
            log.debug("sendfile failed (%s); the file is read and written instead", error)
            break
        if not sent:
            raise FileCutShort(f"the file has ended {left} bytes too soon")
        offset += sent
        left -= sent
        if left:
            await asyncio.sleep(0)  # others have a turn
            _check_there(sink)
    return content.size - left


async def _writable(sink: FileSink, descriptor: int) -> None:
    loop = asyncio.get_running_loop()

    def resume() -> None:
        loop.remove_writer(descriptor)
        if sink.write_paused:
            sink.resume_writing()

    sink.pause_writing()
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
        except OSError as error:  # a broken disk, say: not the client's connection
            raise FileCutShort(f"the file cannot be read: {error}") from error
        if not piece:
            raise FileCutShort(f"the file has ended {left} bytes too soon")
        _check_there(sink)
        sink.transport.write(piece)
        offset += len(piece)
        left -= len(piece)
        if sink.write_paused:
            await sink.drain()
        else:
            await asyncio.sleep(0)


def _check_there(sink: FileSink) -> None:
    if sink.gone:
        raise ConnectionResetError("the client left in the middle of a file")
