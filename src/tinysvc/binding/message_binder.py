"""Binding of a message: the parameters of a handler are the fields of one message, and headers come from metadata.

For protocols whose requests are one message, such as gRPC. What the message has no field for is bound as over HTTP: a
header, a cookie or a token from the request's headers, the request itself, and resources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.requests import Request
from .binder import Binder
from .inputs import Body
from .item_streams import decoded_messages

IN_MESSAGE = frozenset({"path", "query", "json", "bytes", "form", "whole form"})
"""The places whose values are fields of the message; headers and cookies come from metadata."""

Decode = Callable[[bytes], dict[str, Any]]
"""The values of a message by the names of parameters. BindingError for a message that does not fit."""


class MessageBinder(Binder):
    """Fills the parameters of a handler from a message.

    Args:
        binder: The binder of the same handler for HTTP, which has checked its signature.
        decode: Decodes the message. It may return more values than the handler takes.
        decode_item: Decodes one of several messages, for a handler that takes a stream of them.
    """

    def __init__(self, binder: Binder, decode: Decode, decode_item: Callable[[bytes], Any] | None = None) -> None:
        vars(self).update(vars(binder))  # the signature is not read again
        in_message = {each.parameter for each in binder.inputs if each.place in IN_MESSAGE}
        self.body_kind = ""
        self.stream_type = ""
        self._decode = decode
        self._own = frozenset(in_message)
        self._gets = [(name, get) for name, get in binder._gets if name not in in_message]
        self.takes_stream = binder.body_kind == "stream"
        if self.takes_stream and decode_item is not None:
            streamed = next(each.parameter for each in binder.inputs if each.place == "stream")
            self._gets = [each for each in self._gets if each[0] != streamed]
            self._gets.append((streamed, lambda request, body: decoded_messages(request, decode_item)))
        self._before_body = [each for each in binder._before_body if each[0].parameter not in in_message]

    @property
    def takes_only_message(self) -> bool:
        """Whether `bind` does no more than to decode the message."""
        return not self._gets and not self.resources

    def bind(self, request: Request, body: Body, resources: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. BindingError with every fault of the headers, or else of the message."""
        beside = super().bind(request, b"", resources) if self._gets or self.resources else {}
        if self.takes_stream:
            return beside
        decoded = self._decode(bytes(body))
        if decoded.keys() != self._own:
            decoded = {name: value for name, value in decoded.items() if name in self._own}
        return {**beside, **decoded} if beside else decoded
