"""security.py: what a browser is told, and where the handler has its own word."""

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
    answered = asyncio.run(middleware(Request("GET", "/", peer=Peer(None, None, scheme)), call_next))
    assert answered is response
    assert len(dict(answered.headers)) == len(answered.headers)
    return dict(answered.headers)


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
def test_headers(content_type: str | None, scheme: str, options: dict[str, Any], expected: dict[str, str]) -> None:
    assert headers(Response(b"", content_type=content_type), scheme, **options) == expected


def test_the_handler_has_its_own_word() -> None:
    own = {"x-frame-options": "SAMEORIGIN", "content-security-policy": "default-src 'none'"}
    assert headers(Response("", headers=own, content_type="text/html")) == ALWAYS | own


def test_what_would_not_stay_in_its_line_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="the value of the header 'referrer-policy' must be one line"):
        SecurityHeaders(referrer_policy="a\r\nb: c")


@pytest.mark.parametrize("hsts", [-1, 1.5, True, "5"])
def test_what_browsers_would_pass_over_is_refused_at_once(hsts: Any) -> None:
    with pytest.raises(ConfigurationError, match="hsts takes a whole number of seconds"):
        SecurityHeaders(hsts=hsts)
