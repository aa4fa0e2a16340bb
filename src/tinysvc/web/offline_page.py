"""A page of one response: its script and style are inside, and it loads data from its own server only."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import blake2b, sha256
from pathlib import Path

from ..core.requests import Request
from ..core.responses import HTML, Handler, Response
from .conditional import precondition, validators

PARTS = Path(__file__).parent / "page_parts"
"""The style and the script that all pages share."""

POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; style-src 'sha256-{style}'; "
    "script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of a page (CSP, level 3): only its own script, style and server."""


def offline_page(folder: Path, scripts: Sequence[str], shared: Sequence[str] = ()) -> Handler:
    """The page of page.html, page.css and these scripts in `folder`, after the scripts of PARTS that it shares."""
    style = _joined([PARTS / "theme.css", folder / "page.css"])
    parts = [PARTS / name for name in ("elements.js", *shared)]
    script = _joined([*parts, *(folder / name for name in scripts)])
    page = (folder / "page.html").read_text("utf-8").replace("{{style}}", style).replace("{{script}}", script)
    policy = POLICY.format(style=_digest(style), script=_digest(script))
    return fixed(page.encode(), HTML, [("content-security-policy", policy)])


def fixed(content: bytes, content_type: str, headers: Sequence[tuple[str, str]] = ()) -> Handler:
    """A handler for content that does not change while the server runs: with an ETag, for 304 responses."""
    etag = blake2b(content, digest_size=8).hexdigest()

    async def fixed(request: Request) -> Response:
        if response := precondition(request, etag=etag):
            return response
        return Response(content, 200, [*validators(etag=etag), ("cache-control", "no-cache"), *headers], content_type)

    return fixed


def _joined(files: Sequence[Path]) -> str:
    return "\n".join(file.read_text("utf-8") for file in files)


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
