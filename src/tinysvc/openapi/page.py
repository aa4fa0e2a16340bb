"""The routes /openapi.json and /docs: the OpenAPI document, and a page that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import orjson

from ..core.requests import Request
from ..core.responses import JSON, Handler, Response
from ..core.settings import Settings
from ..service.plan import Plan
from ..service.service import Service
from ..web.offline_page import fixed, offline_page
from .document import as_json, document

FOLDER = Path(__file__).parent / "docs_page"
SCRIPTS = ("schema.js", "request.js", "response.js", "durable.js", "form.js", "page.js")


def documentation(service: Service, plans: Iterable[Plan], settings: Settings) -> dict[str, Handler]:
    """The handlers of /openapi.json and /docs, by path."""
    content = openapi_json(service, plans, settings)
    without_prefix = fixed(content, JSON)

    @lru_cache(maxsize=16)
    def with_prefix(root_path: str) -> Handler:
        return fixed(orjson.dumps({**orjson.loads(content), "servers": [{"url": root_path}]}), JSON)

    async def openapi(request: Request) -> Response:
        return await (with_prefix(request.root_path) if request.root_path else without_prefix)(request)

    return {"/openapi.json": openapi, "/docs": docs_page()}


def openapi_json(service: Service, plans: Iterable[Plan], settings: Settings, *, indent: bool = False) -> bytes:
    """The OpenAPI document as JSON. Examples and defaults that JSON has no type for become strings."""
    servers = {"servers": [{"url": settings.root_path}]} if settings.root_path else {}
    return as_json({**document(service, plans, settings), **servers}, indent=indent)


def docs_page() -> Handler:
    """The page that lists the routes and sends requests: one response, which loads `openapi.json` and nothing else."""
    return offline_page(FOLDER, SCRIPTS)


async def to_docs(request: Request) -> Response:
    """Redirect from `/` to the page. Without a known prefix the location is relative: valid behind any prefix."""
    return Response(b"", 307, [("location", f"{request.root_path}/docs" if request.root_path else "docs")])
