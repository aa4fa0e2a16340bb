"""A service with everything that is hard for a generator of clients."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
import pydantic

from tinysvc import (
    ApiKey,
    Bearer,
    Cookie,
    Event,
    Form,
    Header,
    HTTPError,
    Query,
    Response,
    UploadFile,
    WebSocket,
    cpu_route,
    io_route,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Cat(msgspec.Struct, tag="cat"):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Tree(msgspec.Struct):
    r"""A tree: "quotes", a \d backslash and \"\"\"three of them\"\"\"."""

    value: int
    children: list[Tree] = []
    parent: Tree | None = None


@dataclass
class Item:
    name: Annotated[str, msgspec.Meta(min_length=1, description="What it is called.")]
    colour: Colour = Colour.RED
    level: Level | None = None
    note: str | None = None
    price: decimal.Decimal = decimal.Decimal("1.5")
    when: datetime.datetime | None = None
    day: datetime.date | None = None
    id: uuid.UUID | None = None
    extra: dict[str, int] = field(default_factory=dict)
    raw: bytes = b""
    point: tuple[int, int] = (0, 0)
    pets: list[Cat | Dog] = field(default_factory=list)
    thing: int | str | None = None
    mode: Literal["a", "b"] = "a"
    anything: Any = None


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    class_: Annotated[int, msgspec.Meta(description="A keyword.")] = 0


class Event_(msgspec.Struct):  # noqa: N801 - its name in the document is that of an import
    list: int


class Model(pydantic.BaseModel):
    inner: list[Inner]
    maybe: int | None = None


class Inner(pydantic.BaseModel):
    x: int


@io_route("/items", methods=["POST"])
async def put(item: Item) -> Item:
    """Return the item."""
    return item


@io_route("/trees", methods=["POST"])
async def tree(tree: Tree) -> Tree:
    return tree


@io_route("/pets", methods=["POST"])
async def pet(pet: Cat | Dog | None = None) -> Cat | Dog | None:
    return pet


@io_route("/models", methods=["POST"], deprecated=True)
async def model(model: Model) -> Model:
    return model


@io_route("/renamed", methods=["POST"])
async def renamed(body: Renamed) -> Renamed:
    return body


@io_route("/reserved", methods=["POST"])
async def found(body: Event_) -> Event_:
    return body


@io_route("/raw", methods=["POST"])
async def raw(body: bytes) -> bytes:
    return body


@io_route("/empty", methods=["DELETE"])
async def empty() -> None: ...


@io_route("/upload", methods=["POST"])
def upload(
    title: Annotated[str, Form()],
    file: Annotated[UploadFile, Form()],
    files: Annotated[list[UploadFile], Form()],
) -> dict[str, str]:
    return {title: f"{file.filename} {file.content_type} {file.size} {[each.size for each in files]}"}


@io_route("/form", methods=["POST"])
async def form(name: Annotated[str, Form("from")], age: Annotated[int, Form()] = 3) -> str:
    return f"{name} {age}"


@io_route("/values/{class_}")
async def values(
    class_: str,
    x_tag: Annotated[str, Header()],
    room: str = "",
    sid: Annotated[str, Cookie("room")] = "",
    colour: Colour = Colour.RED,
    many: Annotated[list[int], Query("many-of")] = [],  # noqa: B006
    maybe: int | None = None,
    day: datetime.date | None = None,
    level: Level = Level.LOW,
    flag: bool = False,
) -> dict[str, Any]:
    found = {"class": class_, "tag": x_tag, "room": room, "sid": sid, "colour": colour, "many": many}
    return {**found, "maybe": maybe, "day": day, "level": level, "flag": flag}


@io_route("/files/{path:path}")
async def file(path: str) -> Response:
    return Response(path.encode(), content_type="application/pdf")


@io_route("/lines")
async def lines(count: int = 2) -> AsyncIterator[Item]:
    for number in range(count):
        yield Item(str(number))


@cpu_route("/events", timeout=20.0)
def events() -> Iterator[Event]:
    yield Event("a", id="1")
    yield Event("b\nc", event="last", retry=5)


@io_route("/text")
async def text() -> AsyncIterator[str]:
    yield "a\u00e9"
    yield "b"


@io_route("/bytes")
async def some_bytes() -> AsyncIterator[bytes]:
    yield b"\x00"
    yield b"\xff"


@io_route("/any")
async def anything() -> Any:
    return {"a": [1]}


@io_route("/secret")
async def secret(token: Annotated[str, Bearer()], key: Annotated[str, ApiKey("x-key")] = "none") -> str:
    return f"{token} {key}"


@io_route("/mixed")
async def mixed(kind: Literal["item", "text", "none"] = "item") -> Item | str | None:
    return {"item": Item("a"), "text": "b", "none": None}[kind]  # type: ignore[return-value]


@io_route("/fails/{status}", responses={404: "There is no such thing.", 409: Item})
async def fails(status: int) -> int:
    raise HTTPError(status, "It fails.")


@io_route("/moved", responses={303: "It is elsewhere."})
async def moved() -> int | Response:
    return Response(b"", 303, [("location", "/")])


@io_route("/chat")
async def chat(socket: WebSocket) -> None:
    await socket.accept()
