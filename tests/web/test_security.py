"""security.py: the headers of each kind of response, and headers that the handler sets itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tinysvc import ConfigurationError, Request, Response
from tinysvc.core.requests import Peer
from tinysvc.web.security import CONTENT_POLICY, SecurityHeaders

ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
PAGE = {"content-security-policy": CONTENT_POLICY}
HSTS = {"strict-transport-security": "max-age=31536000"}


def headers(response: Response, scheme: str = "http", **options: Any) -> dict[str, str]:
    async def call_next(request: Request) -> Response:
        return response

    middleware = SecurityHeaders(**options)
    found = asyncio.run(middleware(Request("GET", "/", peer=Peer(None, None, scheme)), call_next))
    assert found is response
    assert len(dict(found.headers)) == len(found.headers)
    return dict(found.headers)


@pytest.mark.parametrize(
    ("content_type", "scheme", "options", "expected"),
    [
        ("application/json", "http", {}, ALWAYS),
        (None, "http", {}, ALWAYS),
        ("text/html; charset=utf-8", "http", {}, ALWAYS | PAGE),
        ("text/html", "https", {}, ALWAYS | PAGE | HSTS),
        ("Text/HTML", "http", {}, ALWAYS | PAGE),
        ("application/json", "https", {"hsts": 0}, ALWAYS),
        ("application/json", "https", {"hsts": 5}, ALWAYS | {"strict-transport-security": "max-age=5"}),
        ("text/html", "http", {"content_security_policy": ""}, ALWAYS),
        ("x/y", "http", {"permissions_policy": "camera=()"}, ALWAYS | {"permissions-policy": "camera=()"}),
        ("x/y", "http", {"frame_options": "SAMEORIGIN"}, ALWAYS | {"x-frame-options": "SAMEORIGIN"}),
        (
            "x/y",
            "http",
            {"frame_options": "", "referrer_policy": "", "opener_policy": "", "resource_policy": ""},
            {"x-content-type-options": "nosniff"},
        ),
    ],
)
def test_options_set_the_headers(
    content_type: str | None, scheme: str, options: dict[str, Any], expected: dict[str, str]
) -> None:
    assert headers(Response(b"", content_type=content_type), scheme, **options) == expected


def test_headers_of_the_handler_are_kept() -> None:
    own = {"x-frame-options": "SAMEORIGIN", "content-security-policy": "default-src 'none'"}
    assert headers(Response("", headers=own, content_type="text/html")) == ALWAYS | own


def test_value_with_a_line_break_is_an_error() -> None:
    with pytest.raises(ValueError, match="the value of the header 'referrer-policy' must be one line"):
        SecurityHeaders(referrer_policy="a\r\nb: c")


@pytest.mark.parametrize("hsts", [-1, 1.5, True, "5"])
def test_invalid_hsts_is_a_configuration_error(hsts: Any) -> None:
    with pytest.raises(ConfigurationError, match="hsts takes a whole number of seconds"):
        SecurityHeaders(hsts=hsts)
