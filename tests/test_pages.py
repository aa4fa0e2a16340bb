"""pages.py: the index."""

from __future__ import annotations

import pytest

import faulty
from tinysvc import Request, Service, io_route
from tinysvc.messages import Headers
from tinysvc.pages import index_page


@io_route("/a&b")
async def odd() -> None:
    """<b>bold</b>"""


@pytest.mark.asyncio
async def test_each_route_has_a_line_and_nothing_is_html_by_accident() -> None:
    service = Service(Service(faulty.io, faulty.predict, faulty.model, prefix="/faulty"), Service(odd, prefix="/odd"))
    host = b'x:1"><script>'
    response = await index_page("<title>", service.mounted())(Request("GET", "/", headers=Headers([(b"host", host)])))
    html = response.content.decode()
    assert "curl 'http://x:1&quot;&gt;&lt;script&gt;/faulty/io/number'" in html
    assert "predict' -H 'content-type: application/json' -d '{}'</pre>" in html
    assert '<b class="cpu">cpu</b> POST <code>/faulty/predict</code>' in html
    assert "<script>" not in html
    assert "&lt;b&gt;bold" in html
