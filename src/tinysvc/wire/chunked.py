"""The chunked transfer coding (RFC 9112, 7.1), without I/O: received bytes -> bytes of the body."""

from __future__ import annotations

import re

from ..core.errors import ProtocolError
from ..core.settings import Settings
from ..core.units import KiB
from .heads import FIELD_LINES, TOKEN

CHUNKS_AT_ONCE = 2000
"""Chunks that are parsed in one turn of the event loop: 1 ms for the smallest chunks."""

MAX_EXTENSIONS, MAX_ALL_EXTENSIONS = 256, 4 * KiB
"""Bytes of extensions in one chunk, and in one body (CVE-2023-39326). Only attackers use extensions."""

MAX_CHUNK_LINE = 16 + MAX_EXTENSIONS + 2
"""A chunk-size line: 16 hex digits, extensions, CRLF."""

FRAMING_FIELDS = (b"content-length", b"transfer-encoding")
"""Fields that are refused in a trailer: another program could use them as the framing of the message."""

# RFC 9112, 7.1 and 7.1.1, without the optional whitespace, which the RFC calls bad.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSION = rb";" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?"
_SMALL_CHUNKS = {
    b"%x\r\n" % size: size for size in range(1, 16)
}  # the usual lines of a body with many chunks: no parsing
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + _EXTENSION + rb")*+)\r\n")


class ChunkedDecoder:
    """Decodes a chunked body (RFC 9112, 7.1): `feed` takes received bytes and returns bytes of the body.

    `rest` is None until the body is complete; then it has the bytes after the body. Trailers are checked and discarded.
    `has_more` is set after CHUNKS_AT_ONCE: call `feed` again, with b"" if nothing arrived, to continue.
    """

    def __init__(self, settings: Settings, max_body_size: int | None = None) -> None:
        self._settings = settings
        self._limit = settings.max_body_size if max_body_size is None else max_body_size
        self._buffer = b""  # the beginning of a line
        self._chunk_left = 0  # bytes of the current chunk that have not arrived, its CRLF included
        self._room = self._limit  # bytes left for further chunks
        self._extension_bytes = 0
        self._in_trailers = False
        self._trailers = self._trailer_bytes = 0
        self.rest: bytes | None = None
        self.has_more = False

    @property
    def held(self) -> int:
        """Bytes of a line that has not come to its end."""
        return len(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in `data`. ProtocolError 400, 413 or 431."""
        data = self._buffer + data if self._buffer else data
        position, pieces, left, room = 0, [], self._chunk_left, self._room
        self.has_more = False
        while not self._in_trailers:
            if left:
                end = position + left - 2
                piece, line_end = data[position:end], data[end : end + 2]
                pieces.append(piece)
                if line_end != b"\r\n":
                    if not b"\r\n".startswith(line_end):
                        raise ProtocolError(400, "A chunk is longer than its size line declares (RFC 9112, 7.1).")
                    position += len(piece)
                    left -= len(piece)
                    break
                position, left = end + 2, 0
                if len(pieces) > CHUNKS_AT_ONCE:
                    self.has_more = True
                    break
            small = _SMALL_CHUNKS.get(data[position : position + 3], 0)
            if 0 < small <= room:
                position, left, room = position + 3, small + 2, room - small
                continue
            match = _CHUNK_LINE.match(data, position)
            if match is None:
                self._check_partial_line(data[position : position + MAX_CHUNK_LINE + 1])
                break
            digits, extensions = match.groups()
            if extensions:
                self._count_extensions(extensions)
            position, size = match.end(), int(digits, 16)
            if size == 0:
                self._in_trailers = True
            elif size > room:
                raise ProtocolError(413, f"The body is longer than {self._limit} bytes.")
            else:
                room -= size
                left = size + 2
        self._chunk_left, self._room = left, room
        self._buffer = data[position:]
        if self._in_trailers:
            self._read_trailers()
        return b"".join(pieces)

    def _check_partial_line(self, line: bytes) -> None:
        if b"\n" in line or len(line) > MAX_CHUNK_LINE:
            raise ProtocolError(400, "A chunk-size line is malformed (RFC 9112, 7.1).")

    def _count_extensions(self, extensions: bytes) -> None:
        self._extension_bytes += len(extensions)
        if len(extensions) > MAX_EXTENSIONS or self._extension_bytes > MAX_ALL_EXTENSIONS:
            raise ProtocolError(400, "There are too many chunk extensions.")

    def _read_trailers(self) -> None:
        buffer, position, settings = self._buffer, 0, self._settings
        while self.rest is None:
            end = buffer.find(b"\n", position) + 1 or len(buffer)
            line, position = buffer[position:end], end
            if self._trailer_bytes + len(line) > settings.max_header_size or self._trailers > settings.max_headers:
                raise ProtocolError(431, "There are too many trailers.")
            if line == b"\r\n":
                self.rest = buffer[position:]
            elif not line.endswith(b"\n"):
                self._buffer = line
                return
            elif not FIELD_LINES.fullmatch(line):
                raise ProtocolError(400, "The trailers are malformed.")
            elif line.partition(b":")[0].lower() in FRAMING_FIELDS:
                raise ProtocolError(400, "A trailer is Content-Length or Transfer-Encoding (RFC 9110, 6.5.1).")
            self._trailer_bytes += len(line)
            self._trailers += 1
