"""Numbers of a worker in memory that it shares with the server: they outlive the worker, however it ends.

    64 bytes        words: bytes in use, the worker's pid, series that found no room
    then records    a word: the length of the definition; the definition (MessagePack), padded to 8 bytes; the numbers

A series is added once and keeps its place, so a count is one addition to a double in memory, and the reader needs no
message. A double is aligned and written by one instruction: a reader sees the old number or the new one. `used` grows
after a record is complete. The reader trusts nothing: a job may have taken control of its worker.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

import msgspec

from .snapshots import Kind

SIZE = 1024 * 1024
"""Bytes of the file. Only what is written takes memory. Room for 6,000 counters, or 2,500 histograms of 15 buckets."""

MAX_DEFINITION = 16 * 1024
"""Bytes of a definition: a longer one is from labels that hold whole texts."""

_WORD = 8
_HEADER = 64
_USED, _PID, _LOST = range(3)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Definition(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A series: its metric, and the values of its labels."""

    kind: Kind
    name: str
    text: str
    labels: list[str]
    values: list[str]
    mode: str = ""
    """Of a gauge: its multiprocess_mode."""
    bounds: list[float] = []
    """Of a histogram: the upper bounds, without infinity."""

    def length(self) -> int:
        """How many numbers it has.

        A counter has 1, a gauge its value and time, a summary its sum and count, a histogram its sum and buckets.
        """
        if self.kind == "histogram":
            return len(self.bounds) + 2
        return 1 if self.kind == "counter" else 2

    def is_valid(self) -> bool:
        """Whether it can be a line of an exposition."""
        names = (self.name, *self.labels)
        return (
            len(self.labels) == len(self.values)
            and all(map(_NAME.fullmatch, names))
            and all(map(isfinite, self.bounds))
        )


def plain_text(text: str) -> str:
    """The text with halves of surrogate pairs escaped: an exposition is UTF-8, and one label must not break it."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Definition).decode


def _map(descriptor: int) -> tuple[mmap.mmap, memoryview[int], memoryview[float]]:
    """The mapping of the file, as 64-bit words and as doubles."""
    mapping = mmap.mmap(descriptor, SIZE)
    return mapping, memoryview(mapping).cast("Q"), memoryview(mapping).cast("d")


class ValueWriter:
    """The worker's side. `numbers[index]` is a number of a series, from the index that `add` returns."""

    def __init__(self, descriptor: int) -> None:
        self._mapping, self._words, self.numbers = _map(descriptor)
        self._words[_PID] = os.getpid()
        self._words[_USED] = _HEADER

    def add(self, definition: Definition) -> int | None:
        """Make room for a series. Returns the index of its first number; None if there is no room."""
        data = _encode(definition)
        start = self._words[_USED]
        first = -(-(start + _WORD + len(data)) // _WORD)
        end = (first + definition.length()) * _WORD
        if end > SIZE or len(data) > MAX_DEFINITION:
            self._words[_LOST] += 1
            return None
        self._words[start // _WORD] = len(data)
        self._mapping[start + _WORD : start + _WORD + len(data)] = data
        self._words[_USED] = end
        return first


class Image(NamedTuple):
    """What a file held at a moment."""

    pid: int
    lost: int
    """How many series found no room."""
    series: list[tuple[Definition, int]]
    content: bytes

    def values(self) -> Iterator[tuple[Definition, list[float]]]:
        """All series with their numbers. Of a series with a number that is not finite, all are 0."""
        numbers = memoryview(self.content).cast("d")
        for definition, first in self.series:
            found = list(numbers[first : first + definition.length()])
            yield definition, found if all(map(isfinite, found)) else [0.0] * len(found)


class ValueReader:
    """The server's side."""

    def __init__(self, descriptor: int) -> None:
        self._mapping, self._words, self._numbers = _map(descriptor)
        self._position = _HEADER  # behind the last series that is known
        self._is_broken = False
        self._series: list[tuple[Definition, int]] = []

    @property
    def pid(self) -> int:
        return int(self._words[_PID])

    def image(self) -> Image:
        """A copy of what the file holds now. It takes microseconds."""
        self._find_new()
        return Image(self.pid, int(self._words[_LOST]), self._series.copy(), self._mapping[: self._position])

    def _find_new(self) -> None:
        used = min(int(self._words[_USED]), SIZE)
        while self._position + _WORD < used and not self._is_broken:
            start = self._position + _WORD
            length = int(self._words[self._position // _WORD])
            try:
                if length > MAX_DEFINITION:
                    raise ValueError
                definition = _decode(self._mapping[start : start + length])
                first = -(-(start + length) // _WORD)
                end = (first + definition.length()) * _WORD
                if end > used or not definition.is_valid():
                    raise ValueError
            except ValueError:  # msgspec's errors are ValueErrors, too
                self._is_broken = True  # nothing behind it can be found
                return
            self._series.append((definition, first))
            self._position = end

    def close(self) -> None:
        """Unmap the file."""
        self._words.release()
        self._numbers.release()
        self._mapping.close()
