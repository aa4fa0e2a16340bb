"""Messages of protobuf by hand: the few fixed ones of gRPC itself, such as the status of a failed call.

No library is needed for them. Its classes for descriptors alone take a megabyte in each process, as long as it runs.
"""

from __future__ import annotations

from collections.abc import Iterator

Fields = Iterator[tuple[int, bytes | int]]


def number_field(field: int, value: int) -> bytes:
    """A field with an integer, a truth value or an enum (int32, int64, bool, enum)."""
    return _varint_of(field << 3) + _varint_of(value & (1 << 64) - 1)


def bytes_field(field: int, value: bytes | str) -> bytes:
    """A field with a text, with bytes, or with a message that is written already."""
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return b"".join((_varint_of(field << 3 | 2), _varint_of(len(data)), data))


def read_fields(message: bytes | int) -> Fields:
    """Number and value of each field: bytes and varints (wire types 2 and 0). It ends before anything else.

    Args:
        message: The message. An integer is none: another program has a number where a message is expected.
    """
    position, data = 0, message if isinstance(message, bytes) else b""
    try:
        while position < len(data):
            key, position = _varint(data, position)
            value, position = _varint(data, position)
            if key & 7 == 0:
                yield key >> 3, value
            elif key & 7 == 2 and position + value <= len(data):
                yield key >> 3, data[position : position + value]
                position += value
            else:
                return
    except IndexError:
        return  # it is cut short


def _varint_of(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position
