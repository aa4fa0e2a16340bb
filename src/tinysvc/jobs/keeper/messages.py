"""The messages between the keeper of a store and other server processes, and their frames on a Unix socket.

    other process -> keeper     Hello, then any number of Ask
    keeper -> other process     Welcome or Refused, then for each Ask an Answer or a Raised, in any order;
                                a Changed for each committed change

A frame is its length (4 bytes, big-endian) and a message in MessagePack. Both ends belong to one user on one machine,
and nothing in a message can run code.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Raw, msgpack

from ...core.forks import detach_in_child
from ...core.job_errors import KeyReused, StoreError, StoreFull, TooManyWaiting
from ..records import (
    CancelOutcome,
    Change,
    Claimed,
    Failure,
    NewJob,
    Page,
    Progress,
    Record,
    ResultHead,
    State,
    Submitted,
)
from ..states import Refusal

log = logging.getLogger("tinysvc.jobs")

VERSION = 1
"""Version of these messages. Processes with different versions do not share a store."""

LENGTH = struct.Struct("!I")


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message of a process that is not the keeper."""

    version: int
    owner: str
    """ "" for the command line, which runs no attempts."""
    service: str
    held: list[tuple[str, int]] = []
    """The attempts (id, number) that the process runs: those which the keeper knows beyond them are released."""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The keeper serves this process."""

    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The keeper does not serve this process, for this reason."""

    reason: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Call this method of the store; METHODS has the types of `arguments`."""

    number: int
    method: str
    arguments: Raw


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The method returned this value."""

    number: int
    value: Raw


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """The method raised an error of ERRORS; `arguments` are those of its constructor."""

    number: int
    error: str
    arguments: list[Any]


class Changed(msgspec.Struct, frozen=True, tag="changed"):
    """A change was committed."""

    change: Change


class Content(msgspec.Struct, frozen=True):
    """A result: its bytes, or the path of its file."""

    data: bytes | None = None
    path: str = ""


class Retried(msgspec.Struct, frozen=True):
    """Answer to `retry`."""

    record: Record | None = None
    refusal: Refusal | None = None


Message = Hello | Welcome | Refused | Ask | Answer | Raised | Changed


class Method(NamedTuple):
    """The types of a method of the store that other processes call."""

    arguments: msgpack.Decoder[Any]
    value: msgpack.Decoder[Any]


def _method(arguments: Any, value: Any) -> Method:
    return Method(msgpack.Decoder(arguments), msgpack.Decoder(value))


METHODS: dict[str, Method] = {
    "submit": _method(tuple[NewJob], Submitted),
    "get": _method(tuple[str], Record | None),
    "page": _method(tuple[str | None, State | None, int, str, str | None], Page),
    "result": _method(tuple[str], Content),
    "claim": _method(tuple[dict[str, int], int], list[Claimed]),
    "progress": _method(tuple[str, int, Progress], bool),
    "save": _method(tuple[str, int, bytes], bool),
    "finish": _method(tuple[str, int, ResultHead, bytes], bool),
    "fail": _method(tuple[str, int, Failure], bool),
    "release": _method(tuple[str, int, str], bool),
    "cancel": _method(tuple[str], CancelOutcome),
    "stopped": _method(tuple[str, int], bool),
    "retry": _method(tuple[str], Retried),
    "next_due": _method(tuple[()], float | None),
    "sweep": _method(tuple[float], int),
    "schedule": _method(tuple[str, float, NewJob | None], bool),
    "last_tick": _method(tuple[str], float | None),
}
"""The methods of a store that other processes call."""

ERRORS: dict[str, type[Exception]] = {
    each.__name__: each for each in (StoreError, StoreFull, KeyReused, TooManyWaiting, ValueError)
}
"""The errors that keep their type. Others become a StoreError."""


def raised(number: int, error: Exception) -> Raised:
    """The message for an error that a method of the store raised."""
    match error:
        case KeyReused():
            arguments: list[Any] = [error.key]
        case StoreError() | TooManyWaiting():
            arguments = [error.message, error.retry_after]
        case ValueError():  # a cursor that is none
            return Raised(number, "ValueError", [str(error)])
        case _:
            error = StoreError(f"{type(error).__name__}: {error}")
            arguments = [error.message]
    return Raised(number, type(error).__name__, arguments)


def error_of(raised: Raised) -> Exception:
    """The error that the method of the store has raised."""
    return ERRORS[raised.error](*raised.arguments)


_encoder = msgpack.Encoder()
_decoder: msgpack.Decoder[Message] = msgpack.Decoder(Message)


def raw(value: Any) -> Raw:
    """A value as part of a message."""
    return Raw(_encoder.encode(value))


class Frames(asyncio.Protocol):
    """One end of a connection: messages in, messages out. The frames of one turn of the loop are one write.

    Args:
        on_message: Called with each message.
        on_lost: Called once, when the connection is closed by either end.
    """

    def __init__(self, on_message: Callable[[Message], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._received = bytearray()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.is_full = False
        """The other process does not read: further messages stay in this process's memory."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when it reads again."""

    def send(self, message: Message) -> None:
        """Send a message, or drop it if the connection is lost."""
        if not self._out:
            self._loop.call_soon(self._flush)
        data = _encoder.encode(message)
        self._out += (LENGTH.pack(len(data)), data)

    def close(self) -> None:
        """Send the messages that wait, and close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def fileno(self) -> int:
        """The descriptor of the connection; -1 if it is lost."""
        return -1 if self._transport is None else int(self._transport.get_extra_info("socket").fileno())

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(out)

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # that of uvloop is no subclass
        # A forked child that held the socket would hide the death of this process from the other end.
        detach_in_child(self, lambda end: [end.fileno()])

    def data_received(self, data: bytes) -> None:
        self._received += data
        begin = 0
        while len(self._received) - begin >= LENGTH.size:
            end = begin + LENGTH.size + LENGTH.unpack_from(self._received, begin)[0]
            if len(self._received) < end:
                break
            content = bytes(memoryview(self._received)[begin + LENGTH.size : end])  # a Raw in it keeps it alive
            begin = end
            try:
                message = _decoder.decode(content)
            except msgspec.DecodeError as error:
                log.error(
                    "the connection between two server processes is closed: it carried a broken message: %s", error
                )
                self.abort()
                return
            self._on_message(message)
        del self._received[:begin]

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self.on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()
