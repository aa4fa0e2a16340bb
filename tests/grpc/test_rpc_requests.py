"""rpc_requests.py: metadata are headers."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc.core.requests import Peer
from tinysvc.grpc.rpc_requests import header_lines, metadata_of, peer_of


def test_metadata_become_header_lines() -> None:
    lines = header_lines([("x-user", "Ada"), ("x-user", "Bob"), ("trace-bin", b"\x00\xff")])
    assert lines == [(b"x-user", b"Ada"), (b"x-user", b"Bob"), (b"trace-bin", b"AP8=")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("X-Artifact", "churn@8"), (("x-artifact", "churn@8"),)),
        (("trace-bin", "AP8"), (("trace-bin", b"\x00\xff"),)),
        (("trace-bin", "%"), ()),
        (("x-name", "Jörg"), ()),
        (("x~y", "1"), ()),
        (("content-length", "7"), ()),
        (("access-control-allow-origin", "*"), ()),
        (("grpc-status", "0"), ()),
    ],
)
def test_response_headers_become_metadata(header: tuple[str, str], expected: Any) -> None:
    """HTTP's own matters, and values that metadata cannot hold, are left out."""
    assert metadata_of([header]) == expected


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("other", ""),
    ],
)
def test_address_of_the_client(address: str, client: Any) -> None:
    assert peer_of(address, "https") == Peer(client, None, "https")
    assert peer_of("unix:", "http") == Peer("", "", "http")
