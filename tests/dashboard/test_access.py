"""access.py: clients on this machine only, and buttons for the page itself only."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc import HTTPError, Request
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Peer
from tinysvc.dashboard.access import check_origin, check_peer


def request(client: Any = ("127.0.0.1", 5), host: str = "localhost:8000", **headers: str) -> Request:
    lines = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = Headers([(name.encode(), value.encode()) for name, value in lines.items()])
    return Request("GET", "/dashboard", headers=raw, peer=Peer(client, ("127.0.0.1", 8000), "http"))


@pytest.mark.parametrize(
    "given",
    [
        request(),
        request(("127.3.2.1", 5), "127.0.0.1:8000"),
        request(("::1", 5, 0, 0), "[::1]:8000"),
        request(("::ffff:127.0.0.1", 5, 0, 0), "LOCALHOST"),
    ],
)
def test_client_on_this_machine_may_look(given: Request) -> None:
    check_peer(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (request(("192.0.2.1", 5)), "on the machine of the server"),
        (request("/run/service.sock"), "on the machine of the server"),
        (request(None), "on the machine of the server"),
        (request(x_forwarded_for="192.0.2.1"), "through a proxy"),
        (request(x_forwarded_proto="https"), "through a proxy"),
        (request(forwarded="for=192.0.2.1"), "through a proxy"),
        (request(host="evil.example:8000"), "as localhost only"),
        (request(host="localhost.evil.example"), "as localhost only"),
        (request(host=""), "as localhost only"),
    ],
)
def test_other_client_is_refused(given: Request, reason: str) -> None:
    with pytest.raises(HTTPError, match=reason) as caught:
        check_peer(given)
    assert caught.value.status == 403
    assert "dashboard_guard" in caught.value.detail


def test_other_site_may_not_hold_the_streams() -> None:
    with pytest.raises(HTTPError, match="its own page"):
        check_peer(request(sec_fetch_site="cross-site"))


@pytest.mark.parametrize("headers", [{}, {"origin": "http://localhost:8000", "sec_fetch_site": "same-origin"}])
def test_page_itself_may_press_a_button(headers: dict[str, str]) -> None:
    check_origin(request(**headers))


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}]
)
def test_other_site_may_not_press_a_button(headers: dict[str, str]) -> None:
    with pytest.raises(HTTPError, match="its own page"):
        check_origin(request(**headers))
