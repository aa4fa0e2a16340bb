"""The gRPC service of some routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from rpc_cases import schema_of
from tinysvc import (
    ConfigurationError,
    Form,
    Query,
    Request,
    Response,
    Service,
    UploadFile,
    WebSocket,
    io_resource,
    io_route,
)
from tinysvc.grpc.rpc_schema import RpcSchema
from tinysvc.service.plan import plans_of


@io_route("/users/{id}")
@io_route("/people/{id}")
async def get_user(id: int) -> str:  # noqa: A002
    return str(id)


@io_route("/page")
async def page() -> Response:
    return Response("x")


@io_route("/chat")
async def chat(socket: WebSocket) -> None: ...


@io_route("/upload", methods=["POST"])
async def upload(photo: UploadFile) -> None: ...


@dataclass
class Album:
    title: str
    photos: list[UploadFile]


@io_route("/album", methods=["POST"])
async def album(form: Annotated[Album, Form()]) -> None: ...


@io_route("/raw", methods=["POST"])
async def raw(request: Request) -> bytes:
    return await request.body()


def test_methods_have_the_names_of_their_handlers() -> None:
    schema = schema_of(get_user, name="user-service")
    assert [each.path for each in schema.methods] == ["/user_service.UserService/GetUser"]


def test_routes_that_only_http_has_are_left_out() -> None:
    schema = schema_of(get_user, page, chat, upload, album, raw)
    assert [each.name for each in schema.methods] == ["GetUser"]
    assert [(plan.path, reason) for plan, reason in schema.left_out] == [
        ("/page", "its result is a Response"),
        ("/chat", "its parameter socket takes a connection of its own"),
        ("/upload", "it takes an upload"),
        ("/album", "it takes an upload"),
        ("/raw", "it takes the request, and nothing that a message has"),
    ]


def test_two_handlers_with_one_method_name_are_refused() -> None:
    @io_route("/other")
    async def getUser() -> str:  # noqa: N802
        return ""

    with pytest.raises(ConfigurationError, match="its method in gRPC is GetUser"):
        schema_of(get_user, getUser)


def test_parameters_of_the_resources_of_a_request_are_fields() -> None:
    @io_resource
    def tenant(shop: Annotated[str, Query()]) -> str:
        return shop

    @io_route("/bill")
    async def bill(tenant: str, number: int) -> int:
        return number

    schema = RpcSchema.of("shop", list(plans_of(Service(bill, tenant))))
    codec = schema.methods[0].codec
    assert codec.parameters == ("number", "shop")
    data = codec.encode_arguments({"shop": "x", "number": 3})
    assert codec.decode_arguments(data) == {"shop": "x", "number": 3}
