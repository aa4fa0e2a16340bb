"""A route with parameters of every kind, and its operation in the OpenAPI document."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pydantic
from openapi_spec_validator import validate

from tinysvc import (
    Bearer,
    Cookie,
    Header,
    Query,
    Request,
    Service,
    io_resource,
    io_route,
)
from tinysvc.core.settings import Settings
from tinysvc.openapi.document import document
from tinysvc.service.plan import plans_of


def described(*parts: Any, **options: Any) -> dict[str, Any]:
    """The document of a service with these parts, as JSON; it is validated."""
    service = Service(*parts)
    found: dict[str, Any] = json.loads(msgspec.json.encode(document(service, plans_of(service), Settings(**options))))
    validate(found)
    return found


def operation(*parts: Any, path: str = "/", method: str = "get", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = described(*parts, **options)["paths"][path][method]
    return found


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    """One of several."""

    name: Annotated[str, msgspec.Meta(min_length=1, examples=["nail"])]
    colour: Colour = Colour.RED


@dataclass
class Order:
    items: list[Item]
    note: str | None = None


class Model(pydantic.BaseModel):
    inner: list[Inner]


class Inner(pydantic.BaseModel):
    x: int


@io_resource
async def tenant(request: Request, x_tenant: Annotated[int, Header()]) -> int:
    return x_tenant


@io_resource
async def user(token: Annotated[str, Bearer()], tenant: int) -> str:
    return token


@io_route("/orders/{number}", methods=["PUT"], tags=["shop"], responses={404: "No such order.", 201: Order}, example={})
async def put_order(
    number: int,
    order: Order,
    user: str,
    session: Annotated[str, Cookie("sid")] = "",
    sort: Annotated[Literal["up", "down"], Query(), msgspec.Meta(description="Which way.")] = "up",
    many: Annotated[list[int], Query()] = [],  # noqa: B006
) -> Order:
    """Write an order.

    All of it, as *one*.
    """
    return order
