"""Binding of a message: the parameters of a handler are the fields of one message, and headers come from metadata.

For protocols whose requests are one message, such as gRPC. What the message has no field for is bound as over HTTP: a
header, a cookie or a token from the request's headers, the request itself, and resources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import BindingError
from ..core.requests import Request
from .binder import Binder
from .inputs import Body
from .item_streams import decoded_messages

IN_MESSAGE = frozenset({"path", "query", "json", "bytes", "form", "whole form"})
"""The places whose values are fields of the message; headers and cookies come from metadata."""

Decode = Callable[[bytes], dict[str, Any]]
"""The values of a message by the names of parameters. BindingError for a message that does not fit."""


_IN_PATH = re.compile(r"[^\x00-\x1f\x7f]*")
_IN_QUERY = re.compile(r"[^\x00]*")
"""Texts that HTTP lets through in a path and in a query: see wire/heads.py."""


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
        self.decode = self._checked(decode, binder)
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
        decoded = self.decode(bytes(body))
        if decoded.keys() != self._own:
            decoded = {name: value for name, value in decoded.items() if name in self._own}
        return {**beside, **decoded} if beside else decoded

    def _checked(self, decode: Decode, binder: Binder) -> Decode:
        """`decode`, which refuses what the path or the query of a request cannot hold: handlers may rely on it."""
        places = {each.parameter: each.place for each in binder.inputs if each.place in ("path", "query")}
        if not places:
            return decode

        def checked(message: bytes) -> dict[str, Any]:
            decoded = decode(message)
            for name, place in places.items():
                value = decoded.get(name)
                for text in value if type(value) is list else [value]:
                    if type(text) is str and (fault := fault_of(text, place)):
                        raise BindingError([(name, fault)])
            return decoded

        return checked


def fault_of(text: str, place: str) -> str:
    """Why a text cannot stand in a path or in a query; "" if it can."""
    if place == "path" and not text:
        return "is empty, which no part of a path is"
    if not (_IN_PATH if place == "path" else _IN_QUERY).fullmatch(text):
        return "holds a control character, which is refused"
    return ""
