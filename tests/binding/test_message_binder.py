"""message_binder.py: parameters of a handler from a message, beside headers, the request and resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest

from tinysvc import Header, Request
from tinysvc.binding.binder import Binder
from tinysvc.binding.message_binder import MessageBinder
from tinysvc.core.errors import BindingError
from tinysvc.core.headers import Headers


def decode(message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(message)
    return found


def binder_of(function: Callable[..., Any], *resources: str) -> MessageBinder:
    return MessageBinder(Binder(function, ("number",), resources), decode)


def only_message(number: int, text: str = "", items: list[int] = []) -> None: ...  # noqa: B006


def everything(number: int, store: str, request: Request, x_user: Annotated[str, Header()]) -> None: ...


def test_parameters_of_path_query_and_body_are_fields() -> None:
    binder = binder_of(only_message)
    assert binder.takes_only_message
    message = b'{"number": 3, "text": "a", "items": [1]}'
    assert binder.bind(Request("POST", "/"), message, {}) == {"number": 3, "text": "a", "items": [1]}
    assert binder.bind(Request("POST", "/"), memoryview(message), {})["number"] == 3


def test_the_rest_comes_from_request_and_resources() -> None:
    binder = binder_of(everything, "store")
    assert not binder.takes_only_message
    request = Request("POST", "/", headers=Headers([(b"x-user", b"Ada")]))
    found = binder.bind(request, b'{"number": 3}', {"store": "S", "other": "O"})
    assert found == {"number": 3, "store": "S", "request": request, "x_user": "Ada"}


def test_values_for_others_are_not_arguments() -> None:
    """A resource of the request may take a field of the message."""
    assert binder_of(only_message).bind(Request("POST", "/"), b'{"number": 3, "shop": "x"}', {}) == {"number": 3}


def test_wrong_header_is_a_fault() -> None:
    with pytest.raises(BindingError, match="x-user"):
        binder_of(everything, "store").bind(Request("POST", "/"), b'{"number": 3}', {"store": "S"})
