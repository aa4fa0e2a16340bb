"""A service whose resources need each other, and the request. What happens to them is written to the file `LOG`."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinysvc import (
    ApiKey,
    Batch,
    Bearer,
    Event,
    Header,
    HTTPError,
    Query,
    Request,
    Response,
    WebSocket,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
)


def note(word: str) -> None:
    if path := os.environ.get("RESOURCES_LOG"):
        with Path(path).open("a") as file:
            file.write(f"{word}\n")


@dataclass
class User:
    name: str
    database: str


@io_resource
async def config() -> AsyncIterator[dict[str, str]]:
    note("config opens")
    yield {"name": "main", "ada": "secret"}
    note("config closes")


@io_resource
async def database(config: dict[str, str]) -> AsyncIterator[str]:
    note("database opens")
    yield config["name"]
    note("database closes")


@io_resource
async def user(token: Annotated[str, Bearer()], database: str, config: dict[str, str]) -> User:
    if token != config["ada"]:
        raise HTTPError(401, "This token is nobody's.", headers=[("www-authenticate", "Bearer")])
    note("user")
    return User("ada", database)


@io_resource
async def transaction(database: str, user: User) -> AsyncIterator[str]:
    note("begin")
    try:
        yield f"{database}/{user.name}"
    except BaseException as error:
        note(f"rollback {type(error).__name__}")
        raise
    else:
        note("commit")


@io_resource
def in_thread(request: Request) -> Iterator[str]:
    note("thread begins")
    yield request.method
    note("thread ends")


@io_resource
def plain(request) -> str:  # type: ignore[no-untyped-def]  # by its name alone
    return str(request.raw_path)


@io_resource
async def swallows(request: Request) -> AsyncIterator[int]:
    try:
        yield 1
    except ValueError:
        pass


@io_resource
async def key(key: Annotated[str, ApiKey("x-key")], agent: Annotated[str, Header("user-agent")] = "nobody") -> str:
    return f"{agent}:{key}"


@io_route("/me")
async def me(user: User) -> User:
    return user


@io_route("/twice")
async def twice(user: User, transaction: str) -> list[str]:
    return [user.name, transaction]


@io_route("/fails")
async def fails(transaction: str) -> None:
    raise HTTPError(409, "no")


@io_route("/stream")
async def stream(transaction: str) -> AsyncIterator[str]:
    yield "one "
    yield transaction


@io_route("/broken")
async def broken(transaction: str) -> AsyncIterator[str]:
    yield "one"
    raise LookupError("two")


@io_route("/endless")
async def endless(transaction: str) -> AsyncIterator[Event]:
    yield Event("first")
    await asyncio.Event().wait()


@io_route("/threaded", methods=["POST"])
def threaded(in_thread: str, plain: str, body: bytes) -> str:
    return f"{in_thread} {plain} {body.decode()}"


@io_route("/swallowed")
async def swallowed(swallows: int) -> None:
    raise ValueError("not to be swallowed")


@io_route("/key")
async def keyed(key: str) -> str:
    return key


@io_route("/socket")
async def socket(socket: WebSocket, transaction: str) -> None:
    await socket.accept()
    await socket.send(transaction)


@io_route("/socket-fails")
async def socket_fails(socket: WebSocket, transaction: str) -> None:
    await socket.send(transaction)
    raise LookupError("after it was accepted")


@cpu_resource
def weights(scale: int) -> Iterator[list[int]]:
    yield [scale, 2 * scale]


@cpu_resource
def scale(base: int) -> int:
    return base + 1


@cpu_resource(shared=True)
def base() -> int:
    return 9


@cpu_route("/work")
def work(weights: list[int], user: User) -> Any:
    return [weights, user.name, user.database]


@cpu_route("/cached", cache=60)
def cached(user: User, key: str) -> str:
    note("computed")
    return f"{user.name} {key}"


@cpu_route("/batch", batch=Batch(4))
def batched(n: list[int], user: list[User], scale: int) -> list[str]:
    return [f"{one} {who.name} {scale}" for one, who in zip(n, user, strict=True)]


@io_resource
async def lock(request: Request) -> Any:
    return threading.Lock()


@cpu_route("/unpicklable")
def unpicklable(lock: Any) -> None: ...


@io_resource
async def limit(request: Request, limit: Annotated[int, Query()]) -> AsyncIterator[int]:
    note("limit opens")
    yield limit
    note("limit closes")


@io_resource
def size(limit: int, user: User, size: Annotated[int, Query()]) -> Iterator[str]:
    note("size opens")
    yield f"{size} {limit}"
    note("size closes")


@io_route("/sized")
async def sized(size: str, n: int, user: User) -> str:
    return f"{size} {n} {user.name}"


@cpu_route("/cpu-sized")
def cpu_sized(size: str, n: int, user: User) -> str:
    return f"{size} {n} {user.name}"


@cpu_route("/batch-sized", batch=Batch(4))
def batch_sized(size: list[str], n: list[int], user: list[User]) -> list[str]:
    return [f"{one} {number} {who.name}" for one, number, who in zip(size, n, user, strict=True)]


@cpu_route("/cached-sized", cache=60)
def cached_sized(size: str, n: int, user: User) -> str:
    return f"{size} {n} {user.name}"


@io_route("/socket-sized")
async def socket_sized(socket: WebSocket, size: str, n: int, user: User) -> None:
    await socket.send(size)


@io_route("/sized-body", methods=["POST"])
async def sized_body(size: str, body: dict[str, int], user: User) -> str:
    return size


# Error handlers


class Missing(Exception):
    pass


def missing(request: Request, error: Missing) -> Response:
    return Response({"missing": str(error), "at": request.path}, 404)


def conflict(request: Request, error: LookupError) -> HTTPError:
    return HTTPError(409, f"{type(error).__name__}")


def broken_handler(request: Request, error: ArithmeticError) -> Response:
    return "no response"  # type: ignore[return-value]


def teapot(request: Request, error: HTTPError) -> Response:
    if error.status != 418:
        raise error
    return Response("short and stout", 418)


def apologise(request: Request, error: OSError) -> Response:
    return Response("We are sorry.", 500)


HANDLERS: dict[Any, Any] = {
    Missing: missing,
    LookupError: conflict,
    ArithmeticError: broken_handler,
    HTTPError: teapot,
    OSError: apologise,
}

ERRORS = {
    "missing": Missing("thing"),
    "key": KeyError("inner"),
    "zero": ZeroDivisionError(),
    "teapot": HTTPError(418),
    "gone": HTTPError(410, "gone"),
    "disk": OSError("secret path"),
    "other": RuntimeError("secret"),
}


@io_route("/io/{name}")
async def raises(name: str) -> None:
    raise ERRORS[name]


@cpu_route("/cpu/{name}")
def raises_too(name: str) -> None:
    raise ERRORS[name]


@cpu_route("/all/{name}", batch=Batch(2))
def raise_together(name: list[str]) -> list[Any]:
    return [ERRORS[each] for each in name]
