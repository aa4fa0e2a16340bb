"""message_handlers.py: the function of an io route, called by messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from json_codec import JsonCodec
from tinysvc import Request, Response
from tinysvc.binding.binder import Binder
from tinysvc.binding.message_binder import MessageBinder
from tinysvc.core.call_errors import BudgetExhausted
from tinysvc.core.errors import BindingError, UnencodableResult
from tinysvc.core.responses import Handler
from tinysvc.runtime.message_handlers import MessageFunction, message_handler
from tinysvc.runtime.messages import Messages


def handler_of(function: Callable[..., Any], *resources: str, scoped: bool = False) -> Handler:
    streams = function in (numbers, plain_numbers, listed, wrapped, empty)
    codec = JsonCodec()
    binder = MessageBinder(Binder(function, (), resources), codec.decode_arguments)
    values = dict.fromkeys(resources, "once")
    return message_handler(function, binder, Messages(codec, streams), values, scoped=scoped)


async def replied(function: Callable[..., Any], message: bytes = b"") -> Any:
    response = await handler_of(function)(Request("POST", "/", body=message))
    content = response.content
    return content if isinstance(content, bytes) else [each async for each in content]


async def add(a: int, b: int = 1) -> int:
    return a + b


def plain(a: int) -> int:
    return a


async def numbers() -> AsyncIterator[int]:
    yield 1
    yield 2


def plain_numbers() -> Iterator[int]:
    yield from (1, 2)


async def listed() -> list[int]:
    return [1, 2]


async def wrapped() -> Response:
    return Response(iter([1, 2]), headers={"x-a": "b"})


async def empty() -> Response:
    return Response("none", 404)


async def with_resource(store: str, a: int) -> str:
    return f"{store} {a}"


async def slow(a: int = 0) -> None:
    await asyncio.sleep(60)


@pytest.mark.asyncio
async def test_functions_of_each_kind() -> None:
    assert await replied(add, b'{"a": 1}') == b"result 2"
    assert await replied(plain, b'{"a": 1}') == b"result 1"
    for function in (numbers, plain_numbers, listed, wrapped):
        assert await replied(function) == [b"item 1", b"item 2"]
    assert await replied(empty) == b"none"


@pytest.mark.asyncio
async def test_resources_of_server_and_request() -> None:
    request = Request("POST", "/", body=b'{"a": 1}')
    assert (await handler_of(with_resource, "store")(request)).content == b'result "once 1"'
    request.resources = {"store": "each"}
    assert (await handler_of(with_resource, "store", scoped=True)(request)).content == b'result "each 1"'


@pytest.mark.asyncio
async def test_wrong_message_is_a_binding_error() -> None:
    with pytest.raises(BindingError):
        await replied(add, b"{")


@pytest.mark.asyncio
@pytest.mark.parametrize("resources", [(), ("store",)])
async def test_deadline_of_the_client(resources: tuple[str, ...]) -> None:
    request = Request("POST", "/", body=b"{}")
    request.time_limit = monotonic() + 0.01
    with pytest.raises(BudgetExhausted):
        await handler_of(slow)(request)
    request = Request("POST", "/", body=b'{"a": 1}')
    request.time_limit = monotonic() - 1
    with pytest.raises(BudgetExhausted):
        await handler_of(with_resource, "store")(request)


@pytest.mark.asyncio
async def test_function_of_a_message_alone_needs_no_request() -> None:
    handler = handler_of(add)
    assert isinstance(handler, MessageFunction)
    assert handler.encode(await handler.function(**handler.decode(b'{"a": 1}'))) == b"result 2"
    for function in (plain, with_resource, numbers):
        assert not isinstance(handler_of(function, *(["store"] if function is with_resource else [])), MessageFunction)


def test_results_of_changing_types_are_checked() -> None:
    handler = handler_of(add)
    assert isinstance(handler, MessageFunction)
    for _ in range(2):
        assert handler.encode(1) == b"result 1"
        with pytest.raises(UnencodableResult, match="returned an iterator"):
            handler.encode(iter([1]))
        response = handler.encode(Response(2, headers={"x-a": "b"}))
        assert isinstance(response, Response)
        assert (response.content, response.headers) == (b"result 2", [("x-a", "b")])
        error = handler.encode(Response("none", 404))
        assert isinstance(error, Response)
        assert error.status == 404
