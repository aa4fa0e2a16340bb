"""Who the client is behind proxies: a table of what they say, who says it, and what is believed."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from http_ends import get, on_loop, read_answer, serving
from tinysvc import Service, cpu_route, io_route, testing
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Peer, Request
from tinysvc.core.responses import Response
from tinysvc.core.settings import Settings, SettingsError
from tinysvc.http import Connections
from tinysvc.web.negotiation import link, redirect
from tinysvc.web.proxies import MAX_PROXIES, behind_proxies, trust
from tinysvc.wire.heads import host_is_valid

PROXIES = "10.0.0.0/8 2001:db8::/32 unix"
PROXY = ("10.0.0.1", 40000)
OWN = (PROXY, "http", "own.example")  # what the socket and the Host header say


def seen(*lines: str, peer: Any = PROXY, server: Any = ("10.0.0.9", 80), host: str = "own.example") -> Any:
    """Client, scheme and host of a request with these header lines, as its handler finds them."""
    found: list[Request] = []

    async def handler(request: Request) -> Response:
        found.append(request)
        return Response(None, 204)

    fields = [line.partition(":") for line in (f"Host: {host}", *lines)]
    headers = Headers([(name.lower().encode(), value.strip().encode("latin-1")) for name, _, value in fields])
    asyncio.run(
        _answer(behind_proxies(handler, PROXIES), Request("GET", "/", headers=headers, peer=Peer(peer, server, "http")))
    )
    assert found[0].server == server
    assert found[0].headers is headers
    return found[0].client, found[0].scheme, found[0].host


async def _answer(handler: Any, request: Request) -> None:
    assert (await handler(request)).status == 204


def only(client: Any) -> Any:
    return client, *OWN[1:]


FORWARDED = [
    # RFC 7239: its grammar
    ("for=1.2.3.4", ("1.2.3.4", 0)),
    ("FOR=1.2.3.4", ("1.2.3.4", 0)),
    ('for="1.2.3.4"', ("1.2.3.4", 0)),
    ('for="1.2.3.4:4711"', ("1.2.3.4", 4711)),
    ('for="1.2.3.4:_x"', ("1.2.3.4", 0)),
    (r'for="1\.2.3\.4"', ("1.2.3.4", 0)),
    ('for="[2001:DB9:0::1]"', ("2001:db9::1", 0)),
    ('for="[2001:db9::1]:4711"', ("2001:db9::1", 4711)),
    ('for="[::ffff:1.2.3.4]"', ("1.2.3.4", 0)),
    ("by=10.0.0.9;for=1.2.3.4;x=y", ("1.2.3.4", 0)),
    ('x="a, for=6.6.6.6, b";for=1.2.3.4', ("1.2.3.4", 0)),
    (r'x="\", for=6.6.6.6;y=\"";for=1.2.3.4', ("1.2.3.4", 0)),
    ("for=1.2.3.4 ;\tby=10.0.0.9; ;", ("1.2.3.4", 0)),
    (",for=1.2.3.4, ,", ("1.2.3.4", 0)),
    # the chain, from the right
    ("for=6.6.6.6, for=1.2.3.4", ("1.2.3.4", 0)),
    ("for=6.6.6.6, for=1.2.3.4, for=10.0.0.2", ("1.2.3.4", 0)),
    ('for=1.2.3.4, for="[2001:db8::2]:80", for="10.0.0.2:_y"', ("1.2.3.4", 0)),
    ("for=10.0.0.3, for=10.0.0.2", ("10.0.0.3", 0)),
    ("for=6.6.6.6, for=unknown, for=10.0.0.2", PROXY),
    ("for=6.6.6.6, for=_hidden", PROXY),
    ("for=6.6.6.6, proto=http, for=10.0.0.2", PROXY),
    # nonsense on the left is nobody's concern
    ('for="6.6.6.6, for=1.2.3.4', ("1.2.3.4", 0)),
    ('for="6.6.6.6;x="\\, for=1.2.3.4', ("1.2.3.4", 0)),
    ("\xff, for=1.2.3.4", ("1.2.3.4", 0)),
    # malformed where it matters
    ("for", PROXY),
    ("for=", PROXY),
    ('for=""', PROXY),
    ("=1.2.3.4", PROXY),
    ("for = 1.2.3.4", PROXY),
    ("for=1.2.3.4:80", PROXY),
    ("for=[2001:db9::1]", PROXY),
    ('for="2001:db9::1"', PROXY),
    ('for="[2001:db9::1%eth0]"', PROXY),
    ('for="[1.2.3.4]"', PROXY),
    ('for="1.2.3.4', PROXY),
    ('for=1.2.3.4"', PROXY),
    ("for='1.2.3.4'", PROXY),
    ("for=1.2.3.4;for=6.6.6.6", PROXY),
    ("for=1.2.3.4;proto=http;PROTO=https", PROXY),
    ("for=1.2.3", PROXY),
    ("for=1.2.3.256", PROXY),
    ("for=01.2.3.4", PROXY),
    ("for=client.example", PROXY),
    ('for="1.2.3.4:"', PROXY),
    ('for="1.2.3.4:65536"', PROXY),
    ('for="1.2.3.4:-1"', PROXY),
    ('for="1.2.3.4:80 "', PROXY),
    ("for=1.2.3.4 6.6.6.6", PROXY),
    ("1.2.3.4", PROXY),
    ("for=1.2.3.4, for=\x01", PROXY),
    ("", PROXY),
]


@pytest.mark.parametrize(("value", "client"), FORWARDED)
def test_forwarded(value: str, client: Any) -> None:
    assert seen(f"Forwarded: {value}") == only(client)


X_FORWARDED_FOR = [
    ("1.2.3.4", ("1.2.3.4", 0)),
    ("1.2.3.4:4711", ("1.2.3.4", 4711)),
    ("2001:db9::1", ("2001:db9::1", 0)),
    ("[2001:db9::1]", ("2001:db9::1", 0)),
    ("[2001:db9::1]:4711", ("2001:db9::1", 4711)),
    ("::ffff:1.2.3.4", ("1.2.3.4", 0)),
    ("6.6.6.6, 1.2.3.4", ("1.2.3.4", 0)),
    ("6.6.6.6,1.2.3.4,10.0.0.2,\t10.0.0.3", ("1.2.3.4", 0)),
    ("1.2.3.4, ::ffff:10.0.0.2", ("1.2.3.4", 0)),
    ("10.0.0.3, 10.0.0.2", ("10.0.0.3", 0)),
    ("<script>, 1.2.3.4", ("1.2.3.4", 0)),
    (",, 1.2.3.4 ,", ("1.2.3.4", 0)),
    ("6.6.6.6, unknown, 10.0.0.2", PROXY),
    ("6.6.6.6, 1.2.3", PROXY),
    ('"1.2.3.4"', PROXY),
    ("1.2.3.4:port", PROXY),
    ("1.2.3.4:99999", PROXY),
    ("fe80::1%eth0", PROXY),
    ("[::1", PROXY),
    ("::1]", PROXY),
    ("[", PROXY),
    ("client.example", PROXY),
    ("1.2.3.4 6.6.6.6", PROXY),
    ("\xb9.2.3.4", PROXY),
    ("", PROXY),
]


@pytest.mark.parametrize(("value", "client"), X_FORWARDED_FOR)
def test_x_forwarded_for(value: str, client: Any) -> None:
    assert seen(f"X-Forwarded-For: {value}") == only(client)


def test_several_lines_are_one_list() -> None:
    assert seen("X-Forwarded-For: 6.6.6.6, 1.2.3.4", "X-Forwarded-For: 10.0.0.2") == only(("1.2.3.4", 0))
    assert seen("Forwarded: for=6.6.6.6, for=1.2.3.4", "Forwarded: for=10.0.0.2") == only(("1.2.3.4", 0))
    assert seen('Forwarded: for="6.6.6.6', "Forwarded: for=1.2.3.4") == only(("1.2.3.4", 0))


@pytest.mark.parametrize("kind", ["X-Forwarded-For: {}", "Forwarded: for={}"])
def test_a_longer_row_of_proxies_than_anybody_has_is_not_believed(kind: str) -> None:
    name, _, element = kind.partition(" ")

    def row(proxies: int) -> str:
        return f"{name} {element.format('1.2.3.4')}{(', ' + element.format('10.0.0.2')) * proxies}"

    assert seen(row(MAX_PROXIES - 1)) == only(("1.2.3.4", 0))
    assert seen(row(MAX_PROXIES)) == OWN


@pytest.mark.parametrize(
    ("value", "scheme", "host"),
    [
        ("proto=https", "https", None),
        ("for=unknown;proto=HTTPS", "https", None),
        ("proto=wss", "https", None),
        ("proto=ws", "http", None),
        ("proto=gopher;host=seen.example", "http", "seen.example"),
        ('proto="https";host="seen.example:8443"', "https", "seen.example:8443"),
        ('host="[2001:db9::1]:80"', "http", "[2001:db9::1]:80"),
        ('host="seen.example/path";proto=https', "https", None),
        ('host="a@b"', "http", None),
        ('host="seen.example, other.example"', "http", None),
        (r'host="seen.example\", x"', "http", None),
        ("host=seen.example;proto=https, for=10.0.0.2;proto=http;host=inner", "https", "seen.example"),
        ("for=1.2.3.4, for=10.0.0.2;proto=https;host=inner", "http", None),
        ("proto=http;host=evil, for=1.2.3.4;proto=https;host=seen.example", "https", "seen.example"),
    ],
)
def test_scheme_and_host_stand_beside_the_address(value: str, scheme: str, host: str | None) -> None:
    assert seen(f"Forwarded: {value}")[1:] == (scheme, host or OWN[2])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Proto: https"], ("https", None)),
        (["Proto: WSS"], ("https", None)),
        (["Proto: gopher", "Host: seen.example"], ("http", "seen.example")),
        (["Host: seen.example/path"], ("http", None)),
        (["Host: seen.example, other.example"], ("http", "other.example")),
        # once for all, or one for each proxy
        (["For: 1.2.3.4, 10.0.0.2", "Proto: https", "Host: seen.example"], ("https", "seen.example")),
        (["For: 1.2.3.4, 10.0.0.2", "Proto: https, http", "Host: seen.example, inner"], ("https", "seen.example")),
        (["For: 6.6.6.6, 1.2.3.4", "Proto: http, https", "Host: evil, seen.example"], ("https", "seen.example")),
        (["For: 1.2.3.4, 10.0.0.3, 10.0.0.2", "Proto: https, https", "Host: a, b"], ("http", None)),
        (["For: <script>", "Proto: https"], ("https", None)),
        # a port that the host does not name
        (["Port: 8443", "Proto: https", "Host: seen.example"], ("https", "seen.example:8443")),
        (["Port: 443", "Proto: https", "Host: seen.example"], ("https", "seen.example")),
        (["Port: 80", "Proto: https", "Host: seen.example"], ("https", "seen.example:80")),
        (["Port: 8443", "Host: seen.example:1"], ("http", "seen.example:1")),
        (["Port: 8443", "Host: [2001:db9::1]"], ("http", "[2001:db9::1]:8443")),
        (["Port: 8080"], ("http", "own.example:8080")),
        (["Port: 80"], ("http", None)),
        (["Port: 65536"], ("http", None)),
        (["Port: 0"], ("http", None)),
        (["Port: evil"], ("http", None)),
    ],
)
def test_the_other_x_forwarded_headers(lines: list[str], expected: tuple[str, str | None]) -> None:
    scheme, host = expected
    assert seen(*(f"X-Forwarded-{line}" for line in lines))[1:] == (scheme, host or OWN[2])


def test_a_port_without_any_host_is_of_no_use() -> None:
    assert seen("X-Forwarded-Port: 8080", host="")[2] == ""


@pytest.mark.parametrize(
    ("lines", "believed"),
    [
        (["Forwarded: for=6.6.6.6", "X-Forwarded-For: 1.2.3.4"], OWN),
        (["Forwarded: for=1.2.3.4", "X-Forwarded-For: 6.6.6.6"], OWN),
        (["Forwarded: for=1.2.3.4;proto=https", "X-Forwarded-For: 1.2.3.4"], OWN),
        (["Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil"], OWN),
        (["Forwarded: nonsense", "X-Forwarded-For: 1.2.3.4"], OWN),
        (["Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4"], only(("1.2.3.4", 0))),
        (
            ["Forwarded: for=1.2.3.4;proto=https;host=h"]
            + [f"X-Forwarded-{line}" for line in ("For: 1.2.3.4", "Proto: https", "Host: h", "Port: 443")],
            (("1.2.3.4", 0), "https", "h"),
        ),
    ],
)
def test_who_speaks_both_languages_must_say_the_same_in_both(lines: list[str], believed: Any) -> None:
    assert seen(*lines) == believed


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
def test_whose_word_counts(peer: Any, server: Any, is_believed: bool) -> None:
    expected = (("1.2.3.4", 0), "https", "evil") if is_believed else (peer, *OWN[1:])
    assert seen(*SPOOF, peer=peer, server=server) == expected


def test_other_spellings_are_other_headers() -> None:
    assert seen("X_Forwarded_For: 1.2.3.4", "X-Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4") == OWN


def test_nobody_is_trusted_by_default() -> None:
    assert not trust("")("127.0.0.1")
    assert not trust("unix")("")


@pytest.mark.parametrize(
    ("peers", "sentence"),
    [
        ("10.0.0.7 proxy.example", "'proxy.example' is none; a host's name is no address, so write its address"),
        ("10.0.0.1/8", "bits set for a host; write 10.0.0.0/8 for the network, or 10.0.0.1 for this one address"),
        ("2001:db8::1/32", "write 2001:db8::/32 for the network, or 2001:db8::1 for this one address"),
        ("10.0.0.0/33", "'10.0.0.0/33' is none"),
        ("10.0.0.1:80", "'10.0.0.1:80' is none"),
        ("10.0.0.1,10.0.0.2", "'10.0.0.1,10.0.0.2' has commas; write spaces"),
        ("*", r"'\*' is none; to let every client say who it is, write 0.0.0.0/0 ::/0 unix"),
        ("fe80::1%eth0", "names a zone; leave out the % and what follows"),
        ("unix:/run/tinysvc.sock", "is not this word; write unix"),
        ("Unix", "is not this word; write unix"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104, an IPv4 address in the clothes of IPv6; write it as IPv4"),
    ],
)
def test_a_wrong_peer_is_named_with_its_remedy(peers: str, sentence: str) -> None:
    async def handler(request: Request) -> Response:
        raise AssertionError

    with pytest.raises(ConfigurationError, match=sentence) as wrong:
        behind_proxies(handler, peers)
    assert "proxy_headers" in str(wrong.value)


WORDS = (
    "for= proto= host= by= unknown _x 1.2.3.4 10.0.0.2 2001:db8::2 2001:db9::1 ::ffff:1.2.3.4 https a.example 80 65536"
)
PIECES = st.sampled_from([*WORDS.split(), *'",;[]:=%\\ \t\xff\x00'])
VALUES = st.lists(PIECES, max_size=20).map("".join) | st.text(st.characters(max_codepoint=255), max_size=30)
NAMES = st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"])


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
@example([("Forwarded", 'for="[::1')])
@example([("X-Forwarded-For", "[]"), ("X-Forwarded-Host", "[")])
def test_whatever_is_said_the_result_is_one_that_is_valid(lines: list[tuple[str, str]]) -> None:
    client, scheme, host = seen(*(f"{name}: {value}" for name, value in lines))
    assert client == PROXY or (client[0] == str(ip_address(client[0])) and 0 <= client[1] <= 65535)
    assert scheme in ("http", "https")
    assert host_is_valid(host.encode("latin-1"))


@settings(max_examples=400, deadline=None)
@given(VALUES, st.sampled_from([("Forwarded", "for=1.2.3.4"), ("X-Forwarded-For", "1.2.3.4")]))
def test_nothing_on_the_left_changes_what_the_proxy_says(left: str, says: tuple[str, str]) -> None:
    name, element = says
    assert seen(f"{name}: {left},{element}") == only(("1.2.3.4", 0))


QUOTED = st.lists(st.sampled_from([*"=,; \xffb:[", '\\"', "\\\\", "\\,", "for=6.6.6.6"]), max_size=9).map("".join)


@settings(max_examples=400, deadline=None)
@given(QUOTED, QUOTED, QUOTED)
def test_what_stands_in_quotes_is_data(left: str, before: str, behind: str) -> None:
    proxies = f'for=10.0.0.2;x="{before}", y="{before}";for=10.0.0.3;z="{behind}"'
    assert seen(f'Forwarded: x="{left}", for=1.2.3.4;x="{behind}", {proxies}') == only(("1.2.3.4", 0))


@on_loop
async def test_on_sockets_of_both_kinds(tmp_path: Path) -> None:
    async def who(request: Request) -> Response:
        return Response(f"{request.client[0]} {request.scheme} {request.host}".encode())

    handler = behind_proxies(who, "127.0.0.1 unix")
    asked = get("/", "Forwarded: for=6.6.6.6, for=1.2.3.4;proto=https;host=seen.example")
    async with serving(handler) as server, server.client() as client:
        assert (await client.ask(asked)).body == b"1.2.3.4 https seen.example"
        assert (
            await client.ask(get())
        ).body == b"127.0.0.1 http x"  # the next request is not the proxy's last client's
    connections = Connections(handler, Settings())
    path = str(tmp_path / "socket")
    listener = await asyncio.get_running_loop().create_unix_server(connections, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(asked)
    answer = await read_answer(reader)
    assert answer
    assert answer.body == b"1.2.3.4 https seen.example"
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
def test_a_path_of_the_service_gets_the_root_path_once(where: str, location: str) -> None:
    with testing.serving(Service(to), root_path="/shop") as url:
        answer = httpx.get(f"{url}/to", params={"where": where})
    assert answer.headers["location"] == location
    assert answer.headers["link"] == f'<{location}>; rel="next"'


@io_route("/shop/item")
async def own_shop() -> None: ...


@io_route("/to-own-shop")
async def to_own_shop(request: Request) -> Response:
    return redirect(request.url_for(own_shop))


def test_url_for_a_route_that_begins_with_the_root_path_has_both() -> None:
    with testing.serving(Service(own_shop, to_own_shop), root_path="/shop") as url:
        assert httpx.get(f"{url}/to-own-shop").headers["location"] == "/shop/shop/item"


@pytest.mark.parametrize("wrong", ["shop", "/", "/shop/", "//evil.example", "/a/..", "/a b"])
def test_a_wrong_root_path_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(SettingsError, match="root_path takes a path"):
        Settings(root_path=wrong)
