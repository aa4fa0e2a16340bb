"""Results of calls: a response -> the value that the callee's handler has returned, or the items that it yields.

The inverse of results.py. The annotation of the handler's result says what the value becomes; a response of another
content type is read by its content type alone. Fields that the annotation does not know are ignored: a newer callee may
send more. A missing field that the annotation requires is an `UnreadableReply`, with its place.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterator, Callable, Set
from typing import Any, get_args, get_origin

import msgspec

from ..core.errors import ConfigurationError
from ..core.form_data import is_json_type
from ..core.headers import Headers
from ..core.responses import JSON, MESSAGEPACK, NDJSON, Response
from ..core.sse import Event
from .aliases import without_aliases
from .annotations import hints_of, holds_model, options, without_annotated
from .json_bodies import Decoders, decoders_of
from .readable_types import check_readable
from .results import is_stream

_LINE_END = re.compile(rb"\r\n|\r|\n")

MAX_ITEM = 16 * 1024 * 1024
"""Bytes of one line or event of a stream: as the largest body."""


class UnreadableReply(Exception):
    """The content of a response is not what the handler's annotation says."""


class ReplyReader:
    """Reads the results of one handler.

    Args:
        function: The handler.
        batched: It returns a list, with the result of a call in it.
        travels: The result comes over the network, so its type must be one that can be read.

    Raises:
        ConfigurationError: The type of its result cannot be read from a response.
    """

    def __init__(self, function: Callable[..., Any], *, batched: bool = False, travels: bool = True) -> None:
        annotation = without_aliases(without_annotated(hints_of(function).get("return", Any)))
        if batched:
            annotation = next(iter(get_args(annotation)), Any)
        found = options(annotation)
        self.streams = is_stream(annotation)
        self.returns_response = any(isinstance(each, type) and issubclass(each, Response) for each in found)
        values = [each for each in found if not (isinstance(each, type) and issubclass(each, Response))]
        if self.streams:
            annotation = next(iter(get_args(annotation)), Any)
        elif self.returns_response:
            annotation = _union(values) if values else None
        self._annotation = without_annotated(annotation)
        self._name = function.__qualname__
        kinds = {get_origin(each) or each for each in options(self._annotation)}
        self._takes_anything = Any in kinds or object in kinds or annotation is None
        self._takes = {kind for kind in kinds if isinstance(kind, type)}
        self._decoders: Decoders | None = None
        if self._needs_decoder():
            try:
                if travels and not holds_model(self._annotation):
                    check_readable(function, "result", self._annotation)
                self._decoders = decoders_of(self._annotation)
            except Exception as error:
                if not travels:
                    return
                raise ConfigurationError.at(
                    function,
                    f"its result, {annotation!r}, cannot be read from a response ({error}), so it cannot be called "
                    "over the network; annotate it as a dataclass, a Struct, a standard type, bytes or Response",
                ) from None

    def _needs_decoder(self) -> bool:
        return not self._takes_anything and not self._takes <= {*_RAW, Event, type(None)}

    def value(self, status: int, content_type: str, content: bytes, headers: Headers) -> Any:
        """The value that the handler has returned. UnreadableReply if the content is something else."""
        if content_type == JSON and not self.returns_response and status == 200:
            return self._document(content)
        kind = content_type.partition(";")[0].strip().lower()
        if self.returns_response and (self._takes_anything or not is_json_type(kind)):
            lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw]
            own = [(name, value) for name, value in lines if name not in _NOT_OWN]
            return Response(content, status, own, content_type or None)
        if not self.returns_response:
            _check_whole(status, headers)
        if status in (204, 205) or (not content and not kind):
            return self._checked(None, "no content")
        if is_json_type(kind):
            return self._document(content)
        if kind == MESSAGEPACK:
            return self._document(content, packed=True)
        if kind.startswith("text/"):
            return self._checked(_text(content, content_type), kind)
        return self._bytes(content, kind)

    def _document(self, content: bytes, *, packed: bool = False) -> Any:
        try:
            if self._decoders is None:
                found = msgspec.msgpack.decode(content) if packed else msgspec.json.decode(content)
                if self._takes_anything or (found is None and type(None) in self._takes):
                    return found
                raise UnreadableReply(f"a JSON document came, and {self._wanted()} was expected")
            decode = self._decoders.messagepack if packed else self._decoders.json
            if decode is None:
                raise UnreadableReply(f"MessagePack came, and {self._wanted()} is read from JSON only")
            return decode(content)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise UnreadableReply(str(error)) from None

    def _bytes(self, content: bytes, kind: str) -> Any:
        for raw, make in _RAW.items():
            if raw is not str and raw in self._takes:
                return make(content)
        return self._checked(content, kind or "bytes")

    def _checked(self, value: Any, what: str) -> Any:
        if self._takes_anything or type(value) in self._takes:
            return value
        raise UnreadableReply(f"{what} came, and {self._wanted()} was expected")

    def _wanted(self) -> str:
        return getattr(self._annotation, "__qualname__", None) or repr(self._annotation)

    # Streams

    async def items(self, content_type: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """The items that the handler yields: JSON lines, events, text, or bytes. UnreadableReply for a wrong one."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == NDJSON:
            async for line in _lines(pieces):
                yield self._document(line)
        elif kind == "text/event-stream":
            async for block in _blocks(pieces):
                if (event := self._event(block)) is not None:
                    yield event
        elif is_json_type(kind):
            raise UnreadableReply("a JSON document came, and a stream was expected")
        elif kind.startswith("text/"):
            self._check_pieces({str}, kind)
            async for text in _texts(pieces):
                yield text
        else:
            self._check_pieces(_RAW.keys() - {str}, kind or "bytes")
            async for piece in pieces:
                yield piece

    def _check_pieces(self, kinds: Set[Any], what: str) -> None:
        """UnreadableReply if the handler does not yield pieces of one of these kinds."""
        if not self._takes_anything and not self._takes & kinds:
            raise UnreadableReply(f"{what} came, and a stream of {self._wanted()} was expected")

    def _event(self, block: list[bytes]) -> Any:
        """An event (WHATWG HTML, 9.2.6); its data alone where the handler does not yield `Event`s."""
        fields: dict[str, list[str]] = {}
        for line in block:
            name, _, value = line.decode("utf-8", "replace").partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        if "data" not in fields:
            return None  # a comment, which keeps the stream alive
        data = "\n".join(fields["data"])
        if not self._takes_anything and Event not in self._takes:
            return data if str in self._takes else self._document(data.encode())
        retry = fields.get("retry", [""])[-1]
        return Event(
            data,
            event=fields.get("event", [""])[-1],
            id=fields.get("id", [""])[-1],
            retry=int(retry) if retry.isdecimal() and len(retry) < 10 else None,
        )


_RAW: dict[Any, Callable[[bytes], Any]] = {
    bytes: lambda content: content,
    bytearray: bytearray,
    memoryview: memoryview,
    str: bytes.decode,
}

_NOT_OWN = frozenset(
    {"content-type", "content-length", "date", "connection", "transfer-encoding", "server", "keep-alive"}
)
"""Headers of a response that the connection has made, and not the handler."""


def _check_whole(status: int, headers: Headers) -> None:
    """UnreadableReply if a response is not the result itself. Calls ask neither for a range nor for compression."""
    if 300 <= status < 400:
        raise UnreadableReply(f"{status} is no result, and redirects are not followed")
    if status == 206:
        raise UnreadableReply("206 came, a part of the result, and the whole was expected")
    if (coding := headers.get("content-encoding", "identity")) != "identity":
        raise UnreadableReply(f"a body with the content-encoding {coding} came, which was not asked for")


def _union(kinds: list[Any]) -> Any:
    found = kinds[0]
    for each in kinds[1:]:
        found = found | each
    return found


def _text(content: bytes, content_type: str) -> str:
    _, _, charset = content_type.lower().partition("charset=")
    try:
        return content.decode(charset.strip('" ') or "utf-8")
    except (LookupError, ValueError) as error:
        raise UnreadableReply(f"the text cannot be decoded: {error}") from None


async def _texts(pieces: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The text of a stream, in pieces. UnreadableReply if it is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        async for piece in pieces:
            if text := decoder.decode(piece):
                yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UnreadableReply(f"the text cannot be decoded: {error}") from None


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream. UnreadableReply if the last one has no end."""
    begun, size = list[bytes](), 0
    async for piece in pieces:
        if b"\n" in piece:
            *lines, rest = b"".join([*begun, piece]).split(b"\n")
            for line in lines:
                if line:
                    yield line
            begun, size = [], 0
            piece = rest
        begun.append(piece)
        size += len(piece)
        _check_size(size)
    if rest := b"".join(begun):
        raise UnreadableReply(f"the stream ends in the middle of a line: {rest[-40:]!r}")


async def _blocks(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """The lines of each event, without the empty line at its end."""
    begun, block, size, held = list[bytes](), list[bytes](), 0, False
    async for piece in pieces:
        begun.append(piece)
        size += len(piece)
        if held or b"\n" in piece or b"\r" in piece:
            data = b"".join(begun)
            held = data.endswith(b"\r")  # perhaps the first half of a line end
            *lines, rest = _LINE_END.split(data[:-1] if held else data)
            begun = [rest + b"\r" if held else rest]
            for line in lines:
                if line:
                    block.append(line)
                elif block:
                    yield block
                    block, size = [], len(rest)
        _check_size(size)


def _check_size(size: int) -> None:
    if size > MAX_ITEM:
        raise UnreadableReply(f"one item of the stream is longer than {MAX_ITEM} bytes")
