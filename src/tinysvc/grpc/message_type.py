"""One type of message: its bytes as messages, and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from .message_classes import message_class
from .plain_readers import PlainReaders
from .plain_writers import PlainWriters, Unwritable
from .shapes import MessageShape, contains_itself

MAX_DEPTH = 100
"""Messages inside each other: the limit of protobuf's parsers in all languages."""


class MessageType:
    """The messages of one shape.

    Args:
        shape: The fields.
        files: The descriptors.
        package: The package that the message is in.
    """

    def __init__(self, shape: MessageShape, files: bytes, package: str) -> None:
        self._class = message_class(files, f"{package}.{shape.name}")
        self.parse: Callable[[bytes | memoryview], Any] = self._class.FromString
        """The message of its bytes. DecodeError."""
        self._shape, self._files = shape, files

    @cached_property
    def read_plain(self) -> Callable[[Any], Any]:
        """The plain value of a message. Unreadable."""
        return PlainReaders().message(self._shape)

    def bytes_with(self, fields: dict[str, Any]) -> bytes:
        """The message with these fields. TypeError or ValueError if it refuses one."""
        return self._class(**fields).SerializeToString()  # type: ignore[no-any-return]

    def bytes_of(self, plain: Any) -> bytes:
        """The message of a plain value. Unwritable."""
        found = self._write(plain)
        try:
            data = self.bytes_with(found)
            if self._is_deep and len(data) > MAX_DEPTH:
                self._class.FromString(data)  # protobuf also writes messages that it refuses to read
        except (TypeError, ValueError) as error:
            self._write_checked(plain)
            raise Unwritable("", str(error)) from None
        except (DecodeError, EncodeError, RecursionError):
            raise Unwritable(
                "", f"it is nested deeper than {MAX_DEPTH} messages, which protobuf does not read"
            ) from None
        return data

    @cached_property
    def _write(self) -> Callable[[Any], Any]:
        return PlainWriters(self._files).message(self._shape)

    @cached_property
    def _is_deep(self) -> bool:
        return contains_itself(self._shape)

    @cached_property
    def _write_checked(self) -> Callable[[Any], Any]:
        """Finds the place of a value that the message class refuses."""
        return PlainWriters(self._files, checks_all=True).message(self._shape)
