"""The target of test_threats.py: a service that reads its requests and reports their content."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

from tinysvc import Cookie, Header, Request, Response, UploadFile, WebSocket, cpu_route, io_route
from tinysvc.web.static import StaticFiles

smuggled = 0
SECRET = "hunter2"


@dataclass
class Order:
    number: int
    note: Any = None


@io_route("/", methods=["GET", "POST"])
async def root(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@io_route("/smuggled")
async def smuggle() -> None:
    global smuggled
    smuggled += 1


@io_route("/census")
async def census() -> dict[str, Any]:
    """The numbers that an attack must not change."""
    return {"tasks": len(asyncio.all_tasks()), "smuggled": smuggled}


@io_route("/number/{number}")
async def number(number: int) -> int:
    return number


@io_route("/order", methods=["POST"])
async def io_order(order: Order) -> Order:
    return order


@cpu_route("/cpu/order", methods=["POST"])
def cpu_order(order: Order) -> Order:
    return order


@io_route("/upload", methods=["POST"])
async def io_upload(file: UploadFile) -> list[Any]:
    return [file.filename, file.size]


@cpu_route("/cpu/upload", methods=["POST"])
def cpu_upload(file: UploadFile) -> list[Any]:
    return [file.filename, file.size]


@io_route("/socket")
async def socket(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


def folder() -> str:
    """Make the static folder: a file, a hidden file, links that lead out of it, and a pipe."""
    path = Path.cwd() / "static"
    if not path.exists():
        path.mkdir()
        (path / "file.txt").write_text("file")
        (path / ".hidden").write_text(SECRET)
        (path / "link").symlink_to("/etc/passwd")
        (path / "folder-link").symlink_to("/etc")
        os.mkfifo(path / "pipe")
    return str(path)


files = StaticFiles(folder())


@io_route("/unread", methods=["POST"])
async def unread() -> None: ...


@io_route("/who")
async def who(request: Request) -> dict[str, Any]:
    proxies = {name for name in os.environ if name.lower() in ("proxy", "http_proxy")}
    return {"client": request.client, "scheme": request.scheme, "proxies": sorted(proxies)}


@io_route("/path/{rest:path}")
async def path(rest: str) -> Response:
    return Response(rest)


@io_route("/query")
async def query(a: str = "", role: str = "") -> dict[str, str]:
    return {"a": a, "role": role}


@io_route("/cookie")
async def cookie(a: Annotated[str, Cookie()] = "", host: Annotated[str, Cookie("__Host-x")] = "") -> dict[str, str]:
    return {"a": a, "host": host}


@io_route("/alias")
async def alias(forwarded: Annotated[str, Header("x-forwarded-for")] = "") -> str:
    return forwarded


@io_route("/split", methods=["POST"])
async def split(request: Request, where: str) -> Response:
    """Put text of the client into a response header."""
    text = (await request.body()).decode()
    if where == "type":
        return Response(b"", content_type=text)
    if where == "status":
        return Response(b"", int(text))
    return Response(b"", headers={"x-a": text} if where == "value" else {text: "a"})


@io_route("/empty/{status}")
async def empty(status: int) -> Response:
    """Return a body with a status that allows none."""
    return Response(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", status)


@io_route("/declared/{declared}")
async def declared(declared: int) -> Response:
    """Send ten bytes, whatever the content-length."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"01234"
        yield b"56789"

    return Response(pieces(), headers={"content-length": str(declared)})


@io_route("/fails")
async def fails(request: Request) -> NoReturn:
    raise RuntimeError(f"the password is {SECRET}; sent by {request.headers.get('user-agent')}")


@cpu_route("/cpu/fails")
def cpu_fails() -> NoReturn:
    raise RuntimeError(f"the password is {SECRET}")


@io_route("/endless")
async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(65536)


@io_route("/big")
async def big() -> bytes:
    return bytes(4 << 20)


class Bomb:
    """Unpickling an instance makes a file that is named after the process."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return exec, (f"import os; open({self.folder!r} + f'/by-{{os.getpid()}}', 'w').close()",)


class BombError(Exception):
    def __reduce__(self) -> Any:
        return Bomb(str(self.args[0])).__reduce__()


@cpu_route("/cpu/bomb/{kind}")
def bomb(kind: str) -> Any:
    thing = Bomb(str(Path.cwd()))
    if kind == "raised":
        raise BombError(thing.folder)
    return pickle.dumps(thing) if kind == "pickled" else thing
