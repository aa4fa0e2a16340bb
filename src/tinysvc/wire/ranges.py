"""Parts of a file: the Range header (RFC 9110, 14), and several parts in one body. The only I/O is reading the file."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple

MAX_RANGES = 8
"""Parts in one response. Video and PDF viewers request one or two. A request for hundreds multiplies the work."""

PIECE_SIZE = 256 * 1024
"""Bytes per read of the file."""

_SPEC = re.compile(r"[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*")


class Part(NamedTuple):
    """`size` bytes from `start` on."""

    start: int
    size: int

    def content_range(self, whole: int) -> str:
        return f"bytes {self.start}-{self.start + self.size - 1}/{whole}"


def parse_range(header: str, size: int) -> list[Part] | None:
    """The parts of a file of `size` bytes that a Range header requests. An empty list means 416: all are outside.

    None means that the header is ignored: another unit, a syntax error, more than MAX_RANGES parts, or parts that
    overlap or go back, which no client needs (RFC 9110, 14.2 allows that).
    """
    unit, _, specs = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    found: list[Part] = []
    end = 0
    requested = specs.split(",", MAX_RANGES)
    if len(requested) > MAX_RANGES:
        return None
    for spec in requested:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            length = min(int(suffix), size)
            part = Part(size - length, length)
        else:
            if last and int(last) < int(first):
                return None
            part = Part(int(first), min(int(last or size), size - 1) + 1 - int(first))
        if part.size <= 0:
            continue  # outside the file
        if found and part.start < end:
            return None
        found.append(part)
        end = part.start + part.size
    return found


class MultipartRanges:
    """Several parts of a file as multipart/byteranges (RFC 9110, 14.6). It closes the file at the end."""

    def __init__(self, file: BinaryIO, parts: list[Part], whole: int, content_type: str) -> None:
        self._file = file
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._parts = [
            (
                f"--{boundary}\r\nContent-Type: {content_type}\r\n"
                f"Content-Range: {part.content_range(whole)}\r\n\r\n".encode(),
                part,
            )
            for part in parts
        ]
        self._end = f"--{boundary}--\r\n".encode()
        self.size = sum(len(head) + part.size + 2 for head, part in self._parts) + len(self._end)

    async def pieces(self) -> AsyncIterator[bytes]:
        with self._file:
            for head, (start, size) in self._parts:
                yield head
                while size:
                    piece = os.pread(self._file.fileno(), min(size, PIECE_SIZE), start)
                    if not piece:
                        return  # the file was truncated meanwhile: its declared length is wrong
                    yield piece
                    start += len(piece)
                    size -= len(piece)
                yield b"\r\n"
            yield self._end
