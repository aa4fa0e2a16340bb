"""Readers of streams that another service sends: JSON lines, and server-sent events. They take bytes as they arrive."""

from __future__ import annotations

import re

import orjson

from .sse import Event

MAX_ITEM = 16 * 1024 * 1024
"""Bytes of one line or event. A longer one is refused, so that a stream without line ends cannot fill the memory."""


class LineReader:
    """Reads lines that end with LF; the last one may lack it. ValueError for one of more than MAX_ITEM bytes."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends and without empty ones."""
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = bytes(self._begun) + whole[0]
            self._begun.clear()
        self._begun += rest
        if len(self._begun) > MAX_ITEM:
            raise ValueError(f"a line of the stream has more than {MAX_ITEM:,} bytes")
        return [line for line in whole if line.strip()]

    def end(self) -> bytes:
        """The last line, if it has no end."""
        return bytes(self._begun).strip()


class EventReader:
    """Reads server-sent events (WHATWG HTML, 9.2.6). Data that is JSON is decoded; any other data is text.

    ValueError for an event of more than MAX_ITEM bytes.
    """

    def __init__(self) -> None:
        self._begun = b""
        self._is_first = True
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._id = ""
        self._retry: int | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete now. An event at the end of the stream without an empty line is discarded."""
        data = self._begun + data
        if self._is_first and len(data) >= len(_BYTE_ORDER_MARK):
            self._is_first, data = False, data.removeprefix(_BYTE_ORDER_MARK)
        end = len(data) - data.endswith(b"\r")  # its LF may still come
        *lines, rest = _LINE_END.split(data[:end])
        self._begun = rest + data[end:]
        self._check(len(self._begun))
        return [event for line in lines if (event := self._line(line.decode("utf-8", "replace"))) is not None]

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
            self._check(self._size)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self._retry = int(value)
        return None

    def _dispatch(self) -> Event | None:
        data, rest = self._data, (self._event, self._id, self._retry)
        self._data, self._size, self._event, self._id, self._retry = [], 0, "", "", None
        return Event(_value("\n".join(data)), *rest) if data else None

    def _check(self, size: int) -> None:
        if size > MAX_ITEM:
            raise ValueError(f"an event of the stream has more than {MAX_ITEM:,} bytes")


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)


def _value(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
