"""proxies.py: trusted peers, and the prefix of a proxy in the addresses of responses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from http_ends import get, on_loop, read_response, serving
from proxy_ends import OWN, seen
from tinysvc import Service, WebSocket, cpu_route, io_route, testing
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.core.setting_values import SettingsError
from tinysvc.core.settings import Settings
from tinysvc.server.connections import Connections
from tinysvc.web.negotiation import link, redirect
from tinysvc.web.proxies import behind_proxies, trust

SPOOF = ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil")


@pytest.mark.parametrize(
    ("peer", "server", "is_believed"),
    [
        (("10.0.0.1", 1), ("10.0.0.9", 80), True),
        (("10.255.255.255", 1), ("10.0.0.9", 80), True),
        (("::ffff:10.0.0.1", 1, 0, 0), ("::", 80, 0, 0), True),
        (("2001:db8::7", 1, 0, 0), ("::", 80, 0, 0), True),
        (("2001:db8::7%eth0", 1, 0, 2), ("::", 80, 0, 0), True),
        ("", "/run/tinysvc.sock", True),
        (None, "/run/tinysvc.sock", True),
        (("11.0.0.1", 1), ("10.0.0.9", 80), False),
        (("::ffff:11.0.0.1", 1, 0, 0), ("::", 80, 0, 0), False),
        (("2001:db9::7", 1, 0, 0), ("::", 80, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("::", 80, 0, 0), False),
        (None, ("10.0.0.9", 80), False),
        (None, None, False),
    ],
)
def test_only_trusted_peers_are_believed(peer: Any, server: Any, is_believed: bool) -> None:
    expected = (("1.2.3.4", 0), "https", "evil") if is_believed else (peer, *OWN[1:])
    assert seen(*SPOOF, peer=peer, server=server) == expected


def test_no_peer_is_trusted_by_default() -> None:
    assert not trust("")("127.0.0.1")
    assert not trust("unix")("")


@pytest.mark.parametrize(
    ("peers", "message"),
    [
        ("10.0.0.7 proxy.example", "'proxy.example' is none of these; instead of a host name, write its address"),
        ("10.0.0.1/8", "has host bits set; write 10.0.0.0/8 for the network, or 10.0.0.1 for this one address"),
        ("2001:db8::1/32", "write 2001:db8::/32 for the network, or 2001:db8::1 for this one address"),
        ("10.0.0.0/33", "'10.0.0.0/33' is none of these"),
        ("10.0.0.1:80", "'10.0.0.1:80' is none of these"),
        ("10.0.0.1,10.0.0.2", "'10.0.0.1,10.0.0.2' has commas; separate with spaces"),
        ("*", r"'\*' is none of these; to trust every client, write 0.0.0.0/0 ::/0 unix"),
        ("fe80::1%eth0", "has a zone; remove the % and the text after it"),
        ("unix:/run/tinysvc.sock", "is not valid; write unix"),
        ("Unix", "is not valid; write unix"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104, an IPv4-mapped IPv6 address; write it as IPv4"),
    ],
)
def test_invalid_peer_is_an_error_with_a_remedy(peers: str, message: str) -> None:
    async def handler(request: Request) -> Response:
        raise AssertionError

    with pytest.raises(ConfigurationError, match=message) as wrong:
        behind_proxies(handler, peers)
    assert "proxy_headers" in str(wrong.value)


@on_loop
async def test_tcp_and_unix_sockets(tmp_path: Path) -> None:
    async def show(request: Request) -> Response:
        return Response(f"{request.client[0]} {request.scheme} {request.host}".encode())

    handler = behind_proxies(show, "127.0.0.1 unix")
    data = get("/", "Forwarded: for=6.6.6.6, for=1.2.3.4;proto=https;host=seen.example")
    async with serving(handler) as server, server.client() as client:
        assert (await client.ask(data)).body == b"1.2.3.4 https seen.example"
        assert (await client.ask(get())).body == b"127.0.0.1 http x"  # the next request has no forwarded client
    connections = Connections(handler, Settings())
    path = str(tmp_path / "socket")
    listener = await asyncio.get_running_loop().create_unix_server(connections, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    response = await read_response(reader)
    assert response
    assert response.body == b"1.2.3.4 https seen.example"
    writer.close()
    (connection,) = connections.open
    listener.close()
    await connection.task
    connections.abort()


@io_route("/item/{n}")
async def item(n: int) -> int:
    return n


@io_route("/go")
async def go(request: Request) -> Response:
    return redirect(request.url_for(item, n=3))


@pytest.mark.parametrize(
    ("prefix", "root"),
    [("/shop", "/shop"), ("/a/shop/", "/a/shop"), ("//evil.example", ""), ("/a/..", ""), ("shop", ""), ("/a\\b", "")],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_addresses_begin_with_the_prefix_of_a_trusted_proxy(prefix: str, root: str, trusted: bool) -> None:
    root = root if trusted else ""
    with testing.serving(Service(item, go), proxy_headers="127.0.0.1" if trusted else "10.0.0.1") as url:
        headers = {"x-forwarded-prefix": prefix}
        assert httpx.get(f"{url}/go", headers=headers).headers["location"] == f"{root}/item/3"
        servers = httpx.get(f"{url}/openapi.json", headers=headers).json().get("servers")
        assert servers == ([{"url": root}] if root else None)


@io_route("/to")
async def to(request: Request, where: str) -> Response:
    return Response(b"", 201, headers=[("location", where), link(where, "next")])


@cpu_route("/cpu-go")
def cpu_go() -> Response:
    return redirect("/item/3")


@pytest.mark.parametrize("options", [{"root_path": "/shop"}, {"root_path": "/x", "proxy_headers": "127.0.0.1"}])
def test_every_generated_address_begins_with_the_root_path(options: dict[str, Any]) -> None:
    several = [Service(item, go, to, cpu_go), Service(item, prefix="/more", name="more")]
    headers = {"x-forwarded-prefix": "/shop"}
    with testing.serving(Service(*several), cpu_workers=1, **options) as url:

        def location(path: str) -> str:
            return httpx.get(url + path, headers=headers).headers["location"]

        assert location("/go") == location("/cpu-go") == "/shop/item/3"
        assert location("/") == "/shop/docs"
        assert httpx.get(f"{url}/openapi.json", headers=headers).json()["servers"] == [{"url": "/shop"}]


@cpu_route("/cpu-seen")
def cpu_seen(request: Request) -> list[str]:
    return [request.client[0], request.scheme, request.host, request.root_path]


def test_worker_sees_the_request_as_the_proxy_reports_it() -> None:
    headers = {"forwarded": "for=1.2.3.4;proto=https;host=seen.example", "x-forwarded-prefix": "/shop"}
    with testing.serving(Service(cpu_seen), cpu_workers=1, proxy_headers="127.0.0.1") as url:
        assert httpx.get(f"{url}/cpu-seen", headers=headers).json() == ["1.2.3.4", "https", "seen.example", "/shop"]


@io_route("/socket")
async def socket_seen(socket: WebSocket) -> None:
    asked = socket.request
    await socket.send_json([asked.client[0], asked.scheme, asked.host, asked.root_path])


def test_websocket_sees_its_request_as_the_proxy_reports_it() -> None:
    headers = {"forwarded": "for=1.2.3.4;proto=https;host=seen.example", "x-forwarded-prefix": "/shop"}
    with (
        testing.serving(Service(socket_seen), proxy_headers="127.0.0.1") as url,
        connect(url.replace("http", "ws") + "/socket", additional_headers=headers) as socket,
    ):
        assert json.loads(socket.recv(timeout=20)) == ["1.2.3.4", "https", "seen.example", "/shop"]


@pytest.mark.parametrize(
    ("where", "location"),
    [
        ("/item/3?next=/a", "/shop/item/3?next=/a"),
        ("/", "/shop/"),
        ("/shop", "/shop"),
        ("/shop/item", "/shop/item"),
        ("/shop?a", "/shop?a"),
        ("/shops", "/shop/shops"),
        ("item/3", "item/3"),
        ("https://example.org/x", "https://example.org/x"),
    ],
)
def test_path_of_the_service_gets_the_root_path_once(where: str, location: str) -> None:
    with testing.serving(Service(to), root_path="/shop") as url:
        response = httpx.get(f"{url}/to", params={"where": where})
    assert response.headers["location"] == location
    assert response.headers["link"] == f'<{location}>; rel="next"'


@io_route("/shop/item")
async def own_shop() -> None: ...


@io_route("/to-own-shop")
async def to_own_shop(request: Request) -> Response:
    return redirect(request.url_for(own_shop))


def test_url_for_a_route_that_begins_with_the_root_path_has_both() -> None:
    with testing.serving(Service(own_shop, to_own_shop), root_path="/shop") as url:
        assert httpx.get(f"{url}/to-own-shop").headers["location"] == "/shop/shop/item"


@pytest.mark.parametrize("wrong", ["shop", "/", "/shop/", "//evil.example", "/a/..", "/a b"])
def test_invalid_root_path_is_a_settings_error(wrong: str) -> None:
    with pytest.raises(SettingsError, match="root_path takes a path"):
        Settings(root_path=wrong)
