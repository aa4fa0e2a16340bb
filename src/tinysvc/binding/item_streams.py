"""A stream of requests: a parameter `items: AsyncIterator[T]` of an io handler gets the items as they arrive.

Over HTTP the body is NDJSON, a line for each item, and is read only as fast as the handler takes the items. Over gRPC
each item is a message: see `MessageBinder`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, TypeVar, get_args, get_origin

from ..core.errors import BindingError, ConfigurationError, HTTPError
from ..core.requests import Request
from ..core.responses import NDJSON
from .annotations import without_annotated
from .inputs import Body, Get
from .json_bodies import json_value

T = TypeVar("T")

MAX_LINE = 1024 * 1024
"""Bytes of one line: an item is read as a whole. It is the default length of a WebSocket message, too."""


def is_item_stream(annotation: Any) -> bool:
    """Whether a parameter with this annotation takes a stream of requests."""
    annotation = without_annotated(annotation)
    return (get_origin(annotation) or annotation) in (AsyncIterator, AsyncIterable)


def item_type(annotation: Any) -> Any:
    """The type of the items."""
    return next(iter(get_args(without_annotated(annotation))), Any)


def item_stream(function: Callable[..., Any], name: str, annotation: Any) -> Get:
    """Read the lines of the body. ConfigurationError if the items cannot be read as JSON."""
    kind = item_type(annotation)
    try:
        json_value("null", kind)
    except ValueError:
        pass  # null does not fit
    except Exception as error:
        raise ConfigurationError.at(
            function,
            f"the items of {name} cannot be read as JSON: {error}; annotate it with what JSON has, as in "
            f"{name}: AsyncIterator[dict[str, int]]",
        ) from None

    def get(request: Request, body: Body) -> AsyncIterator[Any]:
        content_type = request.headers.get("content-type", NDJSON).partition(";")[0].strip().lower()
        if content_type != NDJSON:
            text = f"The body must be lines of JSON with 'Content-Type: {NDJSON}', not {content_type!r}."
            raise HTTPError(415, text, headers=[("accept", NDJSON)])
        return _items(request, kind)

    return get


async def _items(request: Request, kind: Any) -> AsyncIterator[Any]:
    """The item of each line; empty lines have none. BindingError for a line that does not fit."""
    number = 0
    async for line in _lines(request):
        if line.strip():
            try:
                item = json_value(line, kind)
            except ValueError as error:
                raise BindingError([(f"$[{number}]", str(error))]) from None
            yield item
            number += 1


async def _lines(request: Request) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in request.stream():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            _check_length(line)
            yield line
        _check_length(rest)
    yield rest


def _check_length(line: bytes) -> None:
    if len(line) > MAX_LINE:
        raise HTTPError(413, f"A line of the body has more than {MAX_LINE} bytes; send it as several items.")


async def decoded_messages(request: Request, decode: Callable[[bytes], T]) -> AsyncIterator[T]:
    """The items of a request whose pieces are messages."""
    async for message in request.stream():
        yield decode(message)
