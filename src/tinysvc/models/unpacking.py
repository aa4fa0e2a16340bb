"""The content of compressed files, for a scanner: exactly what any reader may get from them, also from damaged ones."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from ..core.units import KiB, MiB

MAX_UNPACKED = 4096 * MiB
"""Bytes that are unpacked of one file. It takes about ten seconds."""
MAX_READ = 16 * MiB
"""Bytes that an archive may read at once: the table of 100,000 members has less."""
EXACT = 4 * KiB
"""Up to here, bytes are unpacked one by one. Otherwise the bytes in front of a damage would get lost with it."""


class Unreadable(Exception):
    """It is a container, but it cannot be read to its end here."""


class Effort:
    """The work that one version may cause: a small archive can be made to take days.

    Args:
        left: About so many microseconds.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, amount: int) -> None:
        """Note work.

        Raises:
            Unreadable: It is too much.
        """
        self.left -= amount
        if self.left < 0:
            raise Unreadable

    def spend_bytes(self, count: int) -> None:
        """Note bytes that were unpacked."""
        self.spend(count // 400 + 1)


class Decompressor(Protocol):
    """As in `bz2` and `lzma`."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """Of gzip (RFC 1952) and of the bare zlib format (RFC 1950), which joblib writes."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        content = self._stream.decompress(self._stream.unconsumed_tail + data, max(max_length, 0))
        self.needs_input = len(content) < max_length and not self._stream.unconsumed_tail
        return content


def _is_zlib(start: bytes) -> bool:
    return start[:1] == b"\x78" and int.from_bytes(start[:2], "big") % 31 == 0


FORMATS: list[tuple[Callable[[bytes], bool], Callable[[], Decompressor]]] = [
    (lambda start: start.startswith(b"\x1f\x8b"), _Zlib),
    (_is_zlib, _Zlib),
    (lambda start: start.startswith(b"BZh"), bz2.BZ2Decompressor),
    (lambda start: start.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")), lzma.LZMADecompressor),
]
"""How a compressed file begins, and what unpacks it."""


def unpacked(file: BinaryIO, start: bytes, effort: Effort) -> BinaryIO | None:
    """The content of a compressed file, which can seek; None if it is not compressed.

    Reading it may raise `Unreadable`: the content is longer than `MAX_UNPACKED`, or damaged behind its beginning.

    Args:
        file: The compressed file.
        start: Its first bytes.
        effort: The rest of the work.
    """
    for begins, decompressor in FORMATS:
        if begins(start):
            return _buffered(_Unpacked(file, decompressor, effort))
    return None


def counted(content: BinaryIO, effort: Effort) -> BinaryIO:
    """The content of a member of an archive; each byte that is unpacked counts."""
    return _buffered(_Member(content, effort))


def _buffered(content: io.RawIOBase) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(content, 64 * KiB))


class Bounded:
    """A file that is not read into memory as a whole: readers of archives do so with the table of the members."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(min(size, MAX_READ + 1) if size >= 0 else MAX_READ + 1)
        if len(content) > MAX_READ:
            raise Unreadable
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Forward(io.RawIOBase):
    """Content that is read from its beginning; to seek backwards, it is unpacked once more."""

    _position = 0

    def _restart(self) -> None:
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            while self.read(MiB):
                pass
        target = offset if whence == os.SEEK_SET else offset + self._position
        if target < self._position:
            self._restart()
        while self._position < target and self.read(min(target - self._position, MiB)):
            pass
        return self._position


class _Member(_Forward):
    def __init__(self, content: BinaryIO, effort: Effort) -> None:
        self._content = content
        self._effort = effort

    def _restart(self) -> None:
        self._content.seek(0)
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        piece = self._content.read(len(buffer))
        self._effort.spend_bytes(len(piece))
        self._position += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


class _Unpacked(_Forward):
    def __init__(self, file: BinaryIO, decompressor: Callable[[], Decompressor], effort: Effort) -> None:
        self._file = file
        self._new = decompressor
        self._effort = effort
        self._total = 0
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._magic = self._file.read(2)
        self._file.seek(0)
        self._stream = self._new()
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._next(1 if self._position < EXACT else len(buffer))
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            if self._position < EXACT:
                return 0  # no reader gets further
            raise Unreadable from error
        self._position += len(piece)
        self._total += len(piece)
        self._effort.spend_bytes(len(piece))
        if self._total > MAX_UNPACKED:
            raise Unreadable
        buffer[: len(piece)] = piece
        return len(piece)

    def _next(self, size: int) -> bytes:
        while True:
            packed = b""
            if self._stream.eof:  # one stream may follow another
                packed = self._stream.unused_data or self._file.read(64 * KiB)
                if not packed.startswith(self._magic):
                    return b""
                self._stream = self._new()
            elif self._stream.needs_input and not (packed := self._file.read(64 * KiB)):
                return b""
            if piece := self._stream.decompress(packed, size):
                return piece
