"""address.py: the text of an address, and of the setting `services`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc.client.address import Address, parse_address, parse_services
from tinysvc.core.setting_values import SettingsError


@pytest.mark.parametrize(
    ("text", "address", "authority", "prefix"),
    [
        ("http://a", Address("http", "a", 80), "a", ""),
        ("http://a:8001/", Address("http", "a", 8001), "a:8001", ""),
        ("HTTPS://A.b-c_d:443/shop/x/", Address("https", "a.b-c_d", 443, "/shop/x"), "a.b-c_d", "/shop/x"),
        ("http://[::1]:80", Address("http", "::1", 80), "[::1]", ""),
        ("http://[fe80::1%eth0]:8001", Address("http", "fe80::1%eth0", 8001), "[fe80::1]:8001", ""),
        ("unix:/run/t.sock", Address("unix", path="/run/t.sock"), "localhost", ""),
        ("grpc://a:50051", Address("grpc", "a", 50051), "a:50051", ""),
        ("GRPCS://[::1]:443/", Address("grpcs", "::1", 443), "[::1]:443", ""),
        ("grpc+unix:/run/t.sock", Address("grpc+unix", path="/run/t.sock"), "localhost", ""),
    ],
)
def test_address_in_text(text: str, address: Address, authority: str, prefix: str) -> None:
    found = parse_address(text)
    assert (found, found.authority, found.prefix) == (address, authority, prefix)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a:80", "ftp://a", "http://", "http://a:0", "http://a:65536", "http://a:x", "http://u@a"),
        *(
            "http://a?q",
            "http://a#f",
            "http://a b",
            "unix:t.sock",
            "unix:",
            "http://a\n",
            "http://[::1",
            "http://a//b?c",
            "grpc://a",
            "grpc://a:1/path",
            "grpc+unix:t.sock",
        ),
    ],
)
def test_bad_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        parse_address(text)


def test_services_in_text() -> None:
    text = "inference=http://a:8001,http://b:8001 training=unix:/run/t.sock"
    assert parse_services(text) == {
        "inference": (Address("http", "a", 8001), Address("http", "b", 8001)),
        "training": (Address("unix", path="/run/t.sock"),),
    }
    assert parse_services(" ") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a", "names with their addresses"),
        ("a=http://b a=http://c", "a twice; write all its addresses behind one a=, with commas"),
        ("a=http://b,", "services: of a, an address is"),
        ("a=http://b,http://b:80", "names an address of a twice"),
        ("a/b=http://c", "names with their addresses"),
        ("a=http://b,grpc://c:1", "the addresses of a must be all of HTTP, or all of gRPC"),
        ("a=grpc://b", "must have a port"),
    ],
)
def test_bad_services_name_the_part_and_the_remedy(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        parse_services(text)


HOSTS = st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True)
PATHS = st.from_regex(r"(/[a-z0-9]{1,5}){0,3}", fullmatch=True)


@given(st.builds(Address, st.sampled_from(["http", "https"]), HOSTS, st.integers(1, 65535), PATHS))
def test_text_of_an_address_is_that_address(address: Address) -> None:
    assert parse_address(str(address)) == address
    assert not address.is_rpc


@pytest.mark.parametrize("text", ["grpc://a:1", "grpcs://[::1]:2", "grpc+unix:/run/t.sock"])
def test_address_of_grpc_is_its_text(text: str) -> None:
    assert str(parse_address(text)) == text
    assert parse_address(text).is_rpc
