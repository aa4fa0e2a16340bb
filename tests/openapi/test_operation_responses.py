"""responses.py: results, errors of the framework, and the option `responses`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx
import msgspec
import pytest

from openapi_cases import Item, Model, described, operation, put_order, tenant, user
from tinysvc import (
    ConfigurationError,
    Event,
    EventStream,
    Response,
    WebSocket,
    io_route,
)


def test_declared_and_framework_responses() -> None:
    responses = operation(put_order, user, tenant, path="/orders/{number}", method="put")["responses"]
    assert set(responses) == {"201", "400", "401", "404", "413", "415", "422"}
    assert responses["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Order"}
    assert responses["404"]["description"] == "No such order."
    assert responses["422"]["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize(
    ("annotation", "status", "media"),
    [
        (None, "204", None),
        (str, "200", "text/plain"),
        (bytes, "200", "application/octet-stream"),
        (dict[str, int], "200", "application/json"),
        (Any, "200", "*/*"),
        (Response, "200", "*/*"),
        (EventStream, "200", "text/event-stream"),
        (AsyncIterator[Event], "200", "text/event-stream"),
        (AsyncIterator[Item], "200", "application/x-ndjson"),
        (AsyncIterator[str], "200", "text/plain"),
        (AsyncIterator, "200", "*/*"),
        (list[Model], "200", "application/json"),
        (httpx.Client, "200", "application/json"),
    ],
)
def test_result_type_sets_status_and_media_type(annotation: Any, status: str, media: str | None) -> None:
    @io_route("/")
    async def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    responses = operation(handler)["responses"]
    assert list(responses) == [status]
    assert list(responses[status].get("content", {})) == ([media] if media else [])


@pytest.mark.parametrize("annotation", [bytes, memoryview, Response, AsyncIterator[bytes]])
def test_bytes_are_binary(annotation: Any) -> None:
    @io_route("/")
    async def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    ((_, media),) = operation(handler)["responses"]["200"]["content"].items()
    assert media["schema"] == {"type": "string", "format": "binary"}


@pytest.mark.parametrize("annotation", [EventStream, AsyncIterator[Event]])
def test_event_stream_has_the_schema_of_an_event(annotation: Any) -> None:
    @io_route("/")
    async def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    schema = operation(handler)["responses"]["200"]["content"]["text/event-stream"]["schema"]
    assert (schema["type"], schema["contentMediaType"]) == ("string", "text/event-stream")
    assert set(schema["contentSchema"]["properties"]) == {"event", "data", "id", "retry"}


def test_union_of_result_types_is_any_of() -> None:
    @io_route("/")
    async def handler() -> Item | str | int | None: ...

    assert set(operation(handler)["responses"]) == {"200", "204"}
    content = operation(handler)["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/plain"}
    assert content["application/json"]["schema"] == {
        "anyOf": [{"$ref": "#/components/schemas/Item"}, {"type": "integer", "format": "int64"}]
    }


def test_stream_has_the_schema_of_a_line() -> None:
    @io_route("/")
    async def handler() -> AsyncIterator[Item]:
        yield Item("nail")

    found = described(handler)
    assert found["paths"]["/"]["get"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"] == {
        "type": "string",
        "contentMediaType": "application/x-ndjson",
        "contentSchema": {"$ref": "#/components/schemas/Item"},
    }


def test_option_responses_declares_errors() -> None:
    @io_route("/", responses={HTTPStatus.CONFLICT: Item, 422: Item, 499: int, 404: "None.", 204: None})
    async def handler(x: int) -> None: ...

    responses = operation(handler)["responses"]
    assert {status: list(found.get("content", {})) for status, found in responses.items()} == {
        "204": [],
        "400": ["application/problem+json"],
        "404": ["application/problem+json"],
        "409": ["application/json"],
        "422": ["application/problem+json", "application/json"],
        "499": ["application/json"],
    }
    assert responses["409"]["description"] == "Conflict"
    with pytest.raises(ConfigurationError, match=r"responses takes a sentence or a type, as in .*, not \{'model': "):
        io_route("/", responses={404: {"model": Item}})(handler)


@dataclass
class Problem:
    answer: int


def test_own_type_named_problem_keeps_its_name() -> None:
    @io_route("/", methods=["POST"])
    async def handler(problem: Problem) -> None: ...

    schemas = described(handler)["components"]["schemas"]
    assert set(schemas) == {"Problem", "tinysvc.Problem"}
    assert set(schemas["Problem"]["properties"]) == {"answer"}


@io_route("/socket/{room:path}")
async def socket(socket: WebSocket, room: str) -> None: ...


def test_websocket_route_has_101_and_426() -> None:
    found = operation(socket, path="/socket/{room}")
    assert set(found["responses"]) == {"101", "400", "403", "426"}
    assert found["parameters"][0]["x-tinysvc"] == {"takes_slashes": True}


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    age: int


@io_route("/pets", methods=["POST"])
async def pets(pet: Cat | Dog) -> Cat | Dog | None:
    return pet


def test_union_has_one_schema_in_request_and_response() -> None:
    found = operation(pets, path="/pets", method="post")
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    assert schema["discriminator"]
    assert found["responses"]["200"]["content"]["application/json"]["schema"] == schema
