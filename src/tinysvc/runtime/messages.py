"""Results of a handler as messages: what a route's codec does is the same in the server and in its workers.

The routes are then served twice: over HTTP, and by a protocol of messages, such as gRPC. The body of a request is one
message; the content of a response is one message, or a stream of whole messages. The codec is another room's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple, Protocol

from ..binding.results import encode_result
from ..core.errors import UnencodableResult
from ..core.headers import HeaderLines
from ..core.responses import MESSAGE, Response

_END: Any = object()
_new = object.__new__


class MessageCodec(Protocol):
    """Messages of one route. It is picklable, and its methods can be called from all threads."""

    def decode_arguments(self, data: bytes) -> dict[str, Any]:
        """The values by the names of parameters. BindingError for a message that does not fit."""

    def decode_request_item(self, data: bytes) -> Any:
        """One item of a stream of requests. BindingError as above."""

    def encode_result(self, value: Any) -> bytes:
        """The message of a result. UnencodableResult for a value that has no message."""

    def encode_item(self, value: Any) -> bytes:
        """The same for an item of a stream."""


class Messages(NamedTuple):
    """How the messages of one route are read and written."""

    codec: MessageCodec
    streams: bool = False
    """Whether the response is a stream of messages."""
    takes_stream: bool = False
    """Whether the request is a stream of messages: the body of the request is an iterator over them."""
    name: str = ""
    """The method that takes them, as in "inference.Inference/Predict"."""


def message_response(content: Any, headers: HeaderLines | None = None) -> Response:
    """A 200 with a message, or with a stream of them; made without checks."""
    response = _new(Response)
    response.content, response.status, response.content_type = content, 200, MESSAGE
    response.headers = HeaderLines() if headers is None else headers
    return response


def whole_encoder(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes | Response]:
    """A function of a result, which makes its message. A result that is a Response gives its message headers, or is an
    error.

    Most handlers return one type, so a result is checked only if the one before had another.
    """
    plain_type: type = type(None)  # of the last result that is neither a Response nor an iterator

    def encode_whole(result: Any) -> bytes | Response:
        nonlocal plain_type
        if type(result) is not plain_type:
            if isinstance(result, Response):
                return _response_of(result, lambda content: whole_response(encode_whole(content)))
            if isinstance(result, (Iterator, AsyncIterator)):
                raise UnencodableResult(
                    "the handler returned an iterator, but by its annotation it returns one value; annotate it with "
                    "what it yields, as in -> Iterator[int]"
                )
            plain_type = type(result)
        return encode(result)

    return encode_whole


def whole_response(message: bytes | Response) -> Response:
    """The response for what the function of `whole_encoder` returns."""
    return message_response(message) if isinstance(message, bytes) else message


def _response_of(result: Response, respond: Callable[[Any], Response]) -> Response:
    """The response for a result that is a Response: an error as it is, otherwise its headers with its content."""
    if result.status >= 400:
        return encode_result(result)
    response = respond(result.content)
    list.extend(response.headers, result.headers)
    return response


def message_encoder(messages: Messages) -> Callable[[Any], Response]:
    """A function of a result where no loop runs: the response with its message, or with a stream of messages.

    An error before the first item of a stream is raised at once, as for a plain result.
    """
    encode, encode_item = whole_encoder(messages.codec.encode_result), messages.codec.encode_item

    def encode_stream(result: Any) -> Response:
        if isinstance(result, Response):
            return _response_of(result, encode_stream)
        items = iter(result)
        first = next(items, _END)
        return message_response(iter(()) if first is _END else chain([encode_item(first)], map(encode_item, items)))

    return encode_stream if messages.streams else lambda result: whole_response(encode(result))
