"""websocket_route.py: the end of a handler, and the checks at start-up."""

from __future__ import annotations

import asyncio

import pytest

from http_ends import get, logged, on_loop, serving
from tinysvc import (
    Background,
    ConfigurationError,
    HTTPError,
    Request,
    Response,
    Service,
    SocketClosed,
    WebSocket,
    io_route,
)
from tinysvc.core.responses import Handler
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work
from tinysvc.service.decorators import cpu_route
from websocket_ends import (
    CLOSE,
    KEY,
    TEXT,
    VERSION,
    RawSocket,
    close,
    echo,
    frame,
    open_socket,
    served,
)

pytestmark = pytest.mark.usefixtures("quiet")


@on_loop
async def test_return_of_the_handler_closes_with_1000() -> None:
    @io_route("/once")
    async def once(socket: WebSocket) -> None:
        await socket.send(await socket.receive_text())

    async with open_socket(once, "/once") as peer:
        peer.send(frame(TEXT, b"x"))
        assert await peer.frame() == (TEXT, b"x")
        assert await peer.frame() == (CLOSE, b"\x03\xe8")
        peer.send(close())
        assert await peer.all() == []


@pytest.mark.parametrize(
    ("error", "frame_payload", "line"),
    [
        (RuntimeError("secret"), b"\x03\xf3", "RuntimeError: secret"),
        (SystemExit("secret"), b"\x03\xf3", "SystemExit: secret"),
        (HTTPError(409, "taken" * 100), b"\x03\xf0" + (b"taken" * 25)[:123], ""),
        (TimeoutError("too slow"), b"\x03\xf3", "TimeoutError: too slow"),
        (SocketClosed(1000), b"\x03\xe8", ""),
    ],
)
def test_error_of_the_handler_closes_the_socket(
    error: Exception, frame_payload: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    @io_route("/fails")
    async def fails(socket: WebSocket) -> None:
        await socket.accept()
        raise error

    @on_loop
    async def ask() -> None:
        async with open_socket(fails, "/fails") as peer:
            assert await peer.frame() == (CLOSE, frame_payload)
            peer.send(close())
            assert await peer.all() == []

    ask()
    messages = logged(caplog)
    assert len(messages) == (1 if line else 0)
    assert all(line in message and "GET /fails" in message for message in messages)


@on_loop
async def test_handler_can_refuse_the_socket() -> None:
    @io_route("/private/{name}")
    async def private(socket: WebSocket, name: str, token: str = "") -> None:
        if token != "t":
            raise HTTPError(401, f"{name} needs a token")
        if name == "nobody":
            return
        await socket.send(name)

    async with served(private) as server, server.client() as client:
        assert (await client.ask(get("/private/ada", *KEY, VERSION))).status == 401
        assert (await client.ask(get("/private/nobody?token=t", *KEY, VERSION))).status == 403
        peer = RawSocket(client)
        await peer.open("/private/ada?token=t")
        assert await peer.frame() == (TEXT, b"ada")


@on_loop
async def test_middleware_runs_before_the_handshake() -> None:
    async def guarded(request: Request, call_next: Handler) -> Response:
        if "token" not in request.query:
            raise HTTPError(401, "no token")
        return await call_next(request)

    async with (
        at_work(Service(echo, middleware=[guarded]), Settings()) as running,
        serving(running.handle) as server,
        server.client() as client,
    ):
        assert (await client.ask(get("/echo", *KEY, VERSION))).status == 401
        peer = RawSocket(client)
        await peer.open("/echo?token=1")
        peer.send(frame(TEXT, b"x"))
        assert await peer.frame() == (TEXT, b"x")


@pytest.mark.parametrize(
    ("error", "code", "seen", "logs"),
    [
        (RuntimeError("secret"), 1011, ["middleware 500"], 1),
        (HTTPError(409, "taken"), 1008, ["middleware 409"], 0),
        (KeyError("no such room"), 1011, ["error handler KeyError", "middleware 404"], 0),
    ],
)
def test_error_after_accept_takes_the_way_of_every_error(
    error: Exception, code: int, seen: list[str], logs: int, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[str] = []
    ran: list[str] = []

    async def counted(request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        found.append(f"middleware {response.status}")
        return response

    def missing(request: Request, error: KeyError) -> Response:
        found.append(f"error handler {type(error).__name__}")
        return Response("missing", 404)

    @io_route("/fails")
    async def fails(socket: WebSocket, background: Background) -> None:
        await socket.accept()
        background.add(ran.append, "task")
        raise error

    @on_loop
    async def ask() -> None:
        service = Service(fails, middleware=[counted], error_handlers={KeyError: missing})
        async with (
            at_work(service, Settings()) as running,
            serving(running.handle) as server,
            server.client() as client,
        ):
            peer = RawSocket(client)
            await peer.open("/fails")
            opcode, payload = await peer.frame()
            assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
            peer.send(close())
            assert await peer.all() == []

    ask()
    assert (found, ran) == (seen, [])  # the background task is discarded
    assert len(logged(caplog)) == logs


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_route_that_cannot_take_a_socket_is_an_error_at_start_up(method: str) -> None:
    if method == "POST":

        @io_route("/x", methods=["POST"])
        async def handler(socket: WebSocket) -> None: ...
    else:

        @io_route("/x")
        def handler(socket: WebSocket) -> None: ...  # type: ignore[misc]

    async def start() -> None:
        async with at_work(Service(handler), Settings()):
            pass

    with pytest.raises(ConfigurationError, match=r"handler .*takes a WebSocket.*make it async def, for GET only"):
        asyncio.run(start())


def test_missing_library_is_an_error_at_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "websockets.server", None)

    async def start() -> None:
        async with at_work(Service(echo), Settings()):
            pass

    with pytest.raises(ConfigurationError, match=r"echo .*pip install 'tinysvc\[websocket\]'"):
        asyncio.run(start())


@cpu_route("/worker")
def in_worker(socket: WebSocket) -> None: ...


def test_socket_in_a_cpu_route_is_an_error_at_start_up() -> None:
    async def start() -> None:
        async with at_work(Service(in_worker), Settings()):
            pass

    with pytest.raises(ConfigurationError, match=r"in_worker.*WebSocket.*@io_route"):
        asyncio.run(start())
