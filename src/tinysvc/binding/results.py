"""Results: a handler's return value, or the items it yields, as a response and the chunks of a stream.

    Response                     as it is                    bytes, memoryview            octets
    None                         204                         a generator, an iterator     a stream
    str                          text                        anything else                JSON

A stream takes its content type from the function's annotation, or else from its first item.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import lru_cache, partial
from itertools import chain
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from ..core.context_variables import SavedVariables
from ..core.encoding import json_bytes
from ..core.errors import UnencodableResult
from ..core.fast_encoders import JsonEncoder, fast_encoder_for
from ..core.responses import EVENTS, NDJSON, OCTETS, TEXT, FileContent, Response, json_response
from ..core.sse import Event, EventStream
from ..pool.arena import BIG
from .annotations import options, without_annotated


def encode_result(result: Any) -> Response:
    """A handler's result as a Response. Its content is bytes, a memoryview of a big buffer, or an iterator.

    UnencodableResult names a type that cannot be encoded.
    """
    kind = type(result)
    encoder = _ENCODERS.get(kind) or _encoder_of(kind)  # type: ignore[arg-type]  # a class is hashable
    content: Any = encoder(result)
    return json_response(content) if encoder is json_bytes else content


def _finished(given: Response) -> Response:
    """The response, ready to be sent. A copy: the author may keep the given one, and later steps add headers."""
    response: Response = object.__new__(type(given))
    response.content, response.status = given.content, given.status
    response.content_type, response.headers = given.content_type, given.headers.copy()
    if isinstance(response.content, FileContent):
        response.content_type = response.content_type or OCTETS
    elif not isinstance(response.content, (bytes, Iterator, AsyncIterator)):
        if response.content is None:
            response.content = b""
        else:
            whole = encode_result(response.content)
            response.content, response.content_type = whole.content, response.content_type or whole.content_type
    elif response.content_type is None and isinstance(response.content, bytes) and response.status not in (204, 304):
        response.content_type = OCTETS
    return response


def _text(result: str) -> Response:
    try:
        return Response(result.encode(), content_type=TEXT)
    except UnicodeEncodeError:
        raise _no_text(result) from None


def _no_text(value: Any) -> UnencodableResult:
    return UnencodableResult(
        f"the handler's result cannot be encoded: {value!r:.100} is text with half of a surrogate pair; "
        "encode it with errors='replace'"
    )


def _octets(result: bytearray | memoryview) -> Response:
    view = memoryview(result)
    is_big = view.nbytes >= BIG and view.c_contiguous
    return Response(view.cast("B") if is_big else view.tobytes(), content_type=OCTETS)


_ENCODERS: dict[type, Callable[[Any], Response | bytes]] = {
    dict: json_bytes,
    list: json_bytes,
    str: _text,
    bytes: lambda octets: Response(octets, content_type=OCTETS),
    bytearray: _octets,
    memoryview: _octets,
    type(None): lambda _: Response(b"", 204),
    Response: _finished,
}
"""By the type of a result: makes the response, or the JSON of one."""


@lru_cache(maxsize=256)
def _encoder_of(kind: type) -> Callable[[Any], Response | bytes]:
    """The encoder for a type of the author or of a library."""
    if issubclass(kind, Response):
        return _finished
    if issubclass(kind, (Iterator, AsyncIterator)):
        return Response
    encoder = fast_encoder_for(kind) if issubclass(kind, msgspec.Struct) else None
    return json_bytes if encoder is None else _written_by(encoder.encode)


def _written_by(write: JsonEncoder) -> Callable[[Any], Response]:
    """The encoder for a class that `write` encodes."""

    def encode(result: Any) -> Response:
        try:
            return json_response(write(result, None, 0))
        except (TypeError, ValueError):  # a field has another type than its annotation
            return json_response(json_bytes(result))

    return encode


# Streams

ITEM_TYPES = {Event: EVENTS, str: TEXT, bytes: OCTETS, bytearray: OCTETS, memoryview: OCTETS, Any: "", object: ""}
"""The content type of a stream by the type of its items; "": the first item decides. Other types: NDJSON."""

_STREAMS = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator)

_END: Any = object()


def is_stream(annotation: Any) -> bool:
    """Whether a function with this return annotation streams."""
    annotation = without_annotated(annotation)
    return (get_origin(annotation) or annotation) in _STREAMS


def stream_type_of(annotation: Any) -> str:
    """The content type for a return annotation such as `Iterator[T]`; "" if the first item decides."""
    annotation = without_annotated(annotation)
    if get_origin(annotation) not in _STREAMS or not get_args(annotation):
        return ""
    items = options(get_args(annotation)[0])
    if Event in items:
        return EVENTS
    return ITEM_TYPES.get(items[0], NDJSON) if len(items) == 1 and not isinstance(items[0], TypeVar) else ""


def encode_chunk(item: Any) -> tuple[bytes, str]:
    """A yielded item as bytes, and the content type of a stream that begins with it. Objects become NDJSON lines."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item), OCTETS
    try:
        if isinstance(item, str):
            return item.encode(), TEXT
        if isinstance(item, Event):
            return item.encode(json_bytes), EVENTS
    except UnicodeEncodeError:
        raise _no_text(item) from None
    return json_bytes(item) + b"\n", NDJSON


def _chunk(item: Any) -> bytes:
    return encode_chunk(item)[0]


def _event_chunk(item: Any) -> bytes:
    """An event as bytes. Bytes are encoded events already: middleware gets them from `call_next`."""
    return encode_chunk(item if isinstance(item, (Event, bytes)) else Event(item))[0]


def _first_chunk(item: Any, stream_type: str) -> tuple[bytes, str, Callable[[Any], bytes]]:
    """For a stream that begins with `item`: its bytes, the content type, and the encoder for further items."""
    if item is _END:
        return b"", stream_type or OCTETS, _chunk
    if stream_type == EVENTS or isinstance(item, Event):
        return _event_chunk(item), EVENTS, _event_chunk
    chunk, content_type = encode_chunk(item)
    return chunk, stream_type or content_type, _chunk


def _give_type(response: Response, content_type: str) -> None:
    response.content_type = response.content_type or content_type
    if content_type == EVENTS and not any(name == "cache-control" for name, _ in response.headers):
        response.add_header("cache-control", "no-cache")


def encode_iterator(response: Response, stream_type: str = "") -> Iterator[bytes]:
    """The chunks of a synchronous stream. An error before the first item is raised here, as for a plain result.

    The first item decides the content type, unless `stream_type`, from the function's annotation, is set.
    """
    items = iter(response.content)
    if isinstance(response, EventStream):
        _give_type(response, EVENTS)
        return map(_event_chunk, items)
    chunk, content_type, encode = _first_chunk(next(items, _END), stream_type)
    _give_type(response, content_type)
    return chain([chunk], map(encode, items))


async def begin_stream(response: Response, items: AsyncIterator[Any], stream_type: str = "") -> Response:
    """The response with an asynchronous stream of chunks as its content. Like `encode_iterator`."""
    stream = ChunkStream(items, stream_type)
    _give_type(response, EVENTS if isinstance(response, EventStream) else await stream.begin())
    response.content = stream
    return response


async def begin_result(response: Response, stream_type: str) -> Response:
    """A result, ready to be sent: bytes and files unchanged, the first item of an iterator fetched."""
    items = response.content
    if isinstance(items, (bytes, memoryview, FileContent)):
        return response
    if isinstance(items, Iterator):
        items = iterate_in_thread(items)
    return await begin_stream(response, items, stream_type)


async def iterate_in_thread(items: Iterator[Any]) -> AsyncIterator[Any]:
    from ..core.threads import in_thread  # a worker loads this file, too, and needs no event loop

    end = object()
    try:
        while (item := await in_thread(partial(next, items, end))) is not end:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None and not getattr(items, "gi_running", False):  # its thread outlived a drain
            await in_thread(close, always=True)


class ChunkStream:
    """The chunks of an asynchronous stream. `aclose` closes the author's generator, even if it has not started."""

    def __init__(self, items: AsyncIterator[Any], stream_type: str = "") -> None:
        self._items = items
        self._stream_type = stream_type
        self._first: bytes | None = None
        self._variables = SavedVariables()  # as the handler has set them
        self._encode: Callable[[Any], bytes] = _event_chunk  # for a stream that does not wait for its first item

    async def begin(self) -> str:
        """Fetch the first item, whose error is raised as for a plain result. Returns the content type of the stream."""
        first = await anext(self._items, _END)
        self._first, content_type, self._encode = _first_chunk(first, self._stream_type)
        self._variables = SavedVariables()
        return content_type

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            chunk, self._first = self._first, None
            return chunk
        self._variables.restore()
        return self._encode(await anext(self._items))

    async def aclose(self) -> None:
        self._variables.restore()
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()
