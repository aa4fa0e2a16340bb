"""page.py: the responses of /docs and /openapi.json; docs_page/ itself is tested in test_docs_page.py."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

import faulty
from tinysvc import Handler, Request, Response, Service, io_route
from tinysvc.testing import serving


def test_policy_allows_the_own_script_and_style_only() -> None:
    with serving(Service(faulty.io)) as url:
        response = httpx.get(f"{url}/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", response.text, re.DOTALL)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", response.text)  # nothing from other hosts


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_known_etag_gets_304(path: str) -> None:
    with serving(Service(faulty.io)) as url:
        etag = httpx.get(url + path).headers["etag"]
        again = httpx.get(url + path, headers={"if-none-match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert httpx.head(url + path).headers["etag"] == etag


async def refuse(request: Request, call_next: Handler) -> Response:
    return Response(b"", 401)


def test_docs_are_behind_the_middleware_of_the_service() -> None:
    with serving(Service(faulty.io, middleware=[refuse])) as url:
        statuses = [httpx.get(url + path).status_code for path in ("/docs", "/openapi.json", "/livez")]
    assert statuses == [401, 401, 200]


def test_root_redirects_to_the_docs_unless_a_route_has_it() -> None:
    @io_route("/")
    async def root() -> str:
        return "own"

    several = [Service(faulty.io, prefix="/a"), Service(faulty.io, prefix="/b")]
    with serving(Service(*several)) as url:
        assert httpx.get(f"{url}/").headers["location"] == "docs"
        assert httpx.get(f"{url}/", follow_redirects=True).url.path == "/docs"
    with serving(Service(*several, root)) as url:
        assert httpx.get(f"{url}/").text == "own"
    with serving(Service(*several), docs=False) as url:
        assert httpx.get(f"{url}/").status_code == httpx.get(f"{url}/docs").status_code == 404
