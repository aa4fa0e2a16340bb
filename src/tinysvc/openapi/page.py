"""The routes /openapi.json and /docs: the OpenAPI document, and a page that shows it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from pathlib import Path

import orjson

from ..core.requests import Request
from ..core.responses import HTML, JSON, Handler, Response
from ..core.settings import Settings
from ..service.plan import Plan
from ..service.service import Service
from ..web.conditional import precondition, validators
from .document import as_json, document

FOLDER = Path(__file__).parent / "docs_page"
SCRIPTS = ("schema.js", "request.js", "response.js", "form.js", "page.js")

POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; style-src 'sha256-{style}'; "
    "script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page (CSP, level 3): only its own script, style and server."""


def documentation(service: Service, plans: Iterable[Plan], settings: Settings) -> dict[str, Handler]:
    """The handlers of /openapi.json and /docs, by path."""
    content = openapi_json(service, plans, settings)
    without_prefix = _fixed(content, JSON)

    @lru_cache(maxsize=16)
    def with_prefix(root_path: str) -> Handler:
        return _fixed(orjson.dumps({**orjson.loads(content), "servers": [{"url": root_path}]}), JSON)

    async def openapi(request: Request) -> Response:
        return await (with_prefix(request.root_path) if request.root_path else without_prefix)(request)

    return {"/openapi.json": openapi, "/docs": docs_page()}


def openapi_json(service: Service, plans: Iterable[Plan], settings: Settings, *, indent: bool = False) -> bytes:
    """The OpenAPI document as JSON. Examples and defaults that JSON has no type for become strings."""
    servers = {"servers": [{"url": settings.root_path}]} if settings.root_path else {}
    return as_json({**document(service, plans, settings), **servers}, indent=indent)


def docs_page() -> Handler:
    """The page that lists the routes and sends requests: one response, which loads `openapi.json` and nothing else."""
    style = (FOLDER / "page.css").read_text("utf-8")
    script = "\n".join((FOLDER / name).read_text("utf-8") for name in SCRIPTS)
    page = (FOLDER / "page.html").read_text("utf-8").replace("{{style}}", style).replace("{{script}}", script)
    policy = POLICY.format(style=_digest(style), script=_digest(script))
    return _fixed(page.encode(), HTML, [("content-security-policy", policy)])


async def to_docs(request: Request) -> Response:
    """Redirect from `/` to the page. Without a known prefix the location is relative: valid behind any prefix."""
    return Response(b"", 307, [("location", f"{request.root_path}/docs" if request.root_path else "docs")])


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _fixed(content: bytes, content_type: str, headers: Sequence[tuple[str, str]] = ()) -> Handler:
    """A handler for content that does not change while the server runs: with an ETag, for 304 responses."""
    etag = blake2b(content, digest_size=8).hexdigest()

    async def fixed(request: Request) -> Response:
        if response := precondition(request, etag=etag):
            return response
        return Response(content, 200, [*validators(etag=etag), ("cache-control", "no-cache"), *headers], content_type)

    return fixed
