"""forwarded.py: the grammar of the headers, the chain of proxies, and both kinds of headers at once."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy_ends import OWN, PROXY, only, seen
from tinysvc.web.forwarded import MAX_PROXIES
from tinysvc.wire.heads import host_is_valid

FORWARDED = [
    # the grammar of RFC 7239
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
    # invalid elements on the left are ignored
    ('for="6.6.6.6, for=1.2.3.4', ("1.2.3.4", 0)),
    ('for="6.6.6.6;x="\\, for=1.2.3.4', ("1.2.3.4", 0)),
    ("\xff, for=1.2.3.4", ("1.2.3.4", 0)),
    # invalid elements on the right
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
def test_forwarded_header(value: str, client: Any) -> None:
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
def test_x_forwarded_for_header(value: str, client: Any) -> None:
    assert seen(f"X-Forwarded-For: {value}") == only(client)


def test_several_header_lines_are_one_list() -> None:
    assert seen("X-Forwarded-For: 6.6.6.6, 1.2.3.4", "X-Forwarded-For: 10.0.0.2") == only(("1.2.3.4", 0))
    assert seen("Forwarded: for=6.6.6.6, for=1.2.3.4", "Forwarded: for=10.0.0.2") == only(("1.2.3.4", 0))
    assert seen('Forwarded: for="6.6.6.6', "Forwarded: for=1.2.3.4") == only(("1.2.3.4", 0))


@pytest.mark.parametrize("kind", ["X-Forwarded-For: {}", "Forwarded: for={}"])
def test_chain_over_the_limit_is_ignored(kind: str) -> None:
    name, _, element = kind.partition(" ")

    def chain(proxies: int) -> str:
        return f"{name} {element.format('1.2.3.4')}{(', ' + element.format('10.0.0.2')) * proxies}"

    assert seen(chain(MAX_PROXIES - 1)) == only(("1.2.3.4", 0))
    assert seen(chain(MAX_PROXIES)) == OWN


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
def test_scheme_and_host_belong_to_the_address(value: str, scheme: str, host: str | None) -> None:
    assert seen(f"Forwarded: {value}")[1:] == (scheme, host or OWN[2])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Proto: https"], ("https", None)),
        (["Proto: WSS"], ("https", None)),
        (["Proto: gopher", "Host: seen.example"], ("http", "seen.example")),
        (["Host: seen.example/path"], ("http", None)),
        (["Host: seen.example, other.example"], ("http", "other.example")),
        # one value for all, or one for each proxy
        (["For: 1.2.3.4, 10.0.0.2", "Proto: https", "Host: seen.example"], ("https", "seen.example")),
        (["For: 1.2.3.4, 10.0.0.2", "Proto: https, http", "Host: seen.example, inner"], ("https", "seen.example")),
        (["For: 6.6.6.6, 1.2.3.4", "Proto: http, https", "Host: evil, seen.example"], ("https", "seen.example")),
        (["For: 1.2.3.4, 10.0.0.3, 10.0.0.2", "Proto: https, https", "Host: a, b"], ("http", None)),
        (["For: <script>", "Proto: https"], ("https", None)),
        # a port beside the host
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
def test_x_forwarded_proto_host_and_port(lines: list[str], expected: tuple[str, str | None]) -> None:
    scheme, host = expected
    assert seen(*(f"X-Forwarded-{line}" for line in lines))[1:] == (scheme, host or OWN[2])


def test_port_without_a_host_is_ignored() -> None:
    assert seen("X-Forwarded-Port: 8080", host="")[2] == ""


@pytest.mark.parametrize(
    ("lines", "expected"),
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
def test_both_kinds_of_headers_must_agree(lines: list[str], expected: Any) -> None:
    assert seen(*lines) == expected


def test_similar_header_names_are_ignored() -> None:
    assert seen("X_Forwarded_For: 1.2.3.4", "X-Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4") == OWN


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
def test_any_headers_give_a_valid_client_scheme_and_host(lines: list[tuple[str, str]]) -> None:
    client, scheme, host = seen(*(f"{name}: {value}" for name, value in lines))
    assert client == PROXY or (client[0] == str(ip_address(client[0])) and 0 <= client[1] <= 65535)
    assert scheme in ("http", "https")
    assert host_is_valid(host.encode("latin-1"))


@settings(max_examples=400, deadline=None)
@given(VALUES, st.sampled_from([("Forwarded", "for=1.2.3.4"), ("X-Forwarded-For", "1.2.3.4")]))
def test_elements_before_the_proxys_own_are_ignored(left: str, proxy: tuple[str, str]) -> None:
    name, element = proxy
    assert seen(f"{name}: {left},{element}") == only(("1.2.3.4", 0))


QUOTED = st.lists(st.sampled_from([*"=,; \xffb:[", '\\"', "\\\\", "\\,", "for=6.6.6.6"]), max_size=9).map("".join)


@settings(max_examples=400, deadline=None)
@given(QUOTED, QUOTED, QUOTED)
def test_quoted_text_is_not_parsed(left: str, before: str, behind: str) -> None:
    proxies = f'for=10.0.0.2;x="{before}", y="{before}";for=10.0.0.3;z="{behind}"'
    assert seen(f'Forwarded: x="{left}", for=1.2.3.4;x="{behind}", {proxies}') == only(("1.2.3.4", 0))
