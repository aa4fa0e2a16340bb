"""offline_page.py: a page of one response, and its policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinysvc import Request
from tinysvc.core.headers import Headers
from tinysvc.web.offline_page import fixed, offline_page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text("<style>{{style}}</style><script>{{script}}</script>")
    (tmp_path / "page.css").write_text("/* own style */")
    (tmp_path / "one.js").write_text("// first")
    (tmp_path / "two.js").write_text("// second")
    return tmp_path


@pytest.mark.asyncio
async def test_page_holds_the_shared_parts_and_its_own(folder: Path) -> None:
    response = await offline_page(folder, ("one.js", "two.js"))(Request("GET", "/"))
    assert isinstance(response.content, bytes)
    page = response.content.decode()
    for earlier, later in (("--ground", "own style"), ("function byId", "// first"), ("// first", "// second")):
        assert page.index(earlier) < page.index(later)
    assert "{{" not in page


@pytest.mark.asyncio
async def test_policy_names_the_digests_of_script_and_style(folder: Path) -> None:
    response = await offline_page(folder, ("one.js",))(Request("GET", "/"))
    policy = dict(response.headers)["content-security-policy"]
    assert re.search(r"style-src 'sha256-[\w+/=]{44}'; script-src 'sha256-[\w+/=]{44}'", policy)


@pytest.mark.asyncio
async def test_fixed_content_has_an_etag() -> None:
    handler = fixed(b"same", "text/plain")
    etag = dict((await handler(Request("GET", "/"))).headers)["etag"]
    again = await handler(Request("GET", "/", headers=Headers([(b"if-none-match", etag.encode())])))
    assert (again.status, again.content) == (304, b"")
