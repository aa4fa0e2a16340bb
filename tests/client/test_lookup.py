"""lookup.py: from an address to endpoints."""

from __future__ import annotations

import socket

import pytest

from http_ends import on_loop
from tinysvc.client.address import parse_address
from tinysvc.client.lookup import known_endpoint, look_up


@pytest.mark.parametrize(
    ("address", "family", "target"),
    [
        ("http://127.0.0.1:8001", socket.AF_INET, ("127.0.0.1", 8001)),
        ("http://[::1]", socket.AF_INET6, ("::1", 80, 0, 0)),
        ("unix:/run/t.sock", socket.AF_UNIX, "/run/t.sock"),
    ],
)
def test_address_without_a_name_needs_no_lookup(address: str, family: int, target: object) -> None:
    assert known_endpoint(parse_address(address)) == (family, target)


@on_loop
async def test_name_is_looked_up() -> None:
    address = parse_address("http://localhost:8001")
    assert known_endpoint(address) is None
    found = await look_up(address)
    assert (socket.AF_INET, ("127.0.0.1", 8001)) in found
    assert len(set(found)) == len(found)


@on_loop
async def test_unknown_name_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        await look_up(parse_address("http://name.invalid"))
