"""A codec of messages that are JSON, for tests that need no gRPC."""

from __future__ import annotations

from typing import Any

import msgspec

from tinysvc.core.errors import BindingError


class JsonCodec:
    def decode_arguments(self, data: bytes) -> dict[str, Any]:
        try:
            found: dict[str, Any] = msgspec.json.decode(data or b"{}")
        except ValueError as error:
            raise BindingError([("$", str(error))]) from None
        return found

    def decode_request_item(self, data: bytes) -> Any:
        return msgspec.json.decode(data)

    def encode_result(self, value: Any) -> bytes:
        return b"result " + msgspec.json.encode(value)

    def encode_item(self, value: Any) -> bytes:
        return b"item " + msgspec.json.encode(value)
