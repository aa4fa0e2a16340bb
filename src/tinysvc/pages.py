"""The pages a server shows of itself: the index of a folder of services."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from html import escape

import orjson

from .conditional import precondition, validators
from .messages import HTML, JSON, Handler, Request, Response
from .openapi import document
from .service import Mounted, Service
from .settings import Settings
from .wiring import Wiring, wiring_of

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --io: #1a7f5a; --cpu: #b4540a; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2rem 0 .3rem; border-bottom: 1px solid var(--line); }
p { margin: .3rem 0; }
pre { overflow-x: auto; margin: .3rem 0 1rem; padding: .5rem; border: 1px solid var(--line); border-radius: 6px; }
b { font: 600 13px/1 monospace; color: #fff; padding: 2px 6px; border-radius: 4px; }
.io { background: var(--io); } .cpu { background: var(--cpu); }
"""


def documentation(service: Service, wirings: Iterable[Wiring], settings: Settings) -> dict[str, Handler]:
    """What a service says of itself, by paths."""
    content = openapi_json(service, wirings, settings)
    etag = blake2b(content, digest_size=8).hexdigest()

    async def openapi(request: Request) -> Response:
        if answer := precondition(request, etag=etag):
            return answer
        return Response(content, 200, [*validators(etag=etag), ("cache-control", "no-cache")], JSON)

    return {"/openapi.json": openapi}


def openapi_json(service: Service, wirings: Iterable[Wiring], settings: Settings, *, indent: bool = False) -> bytes:
    """The OpenAPI document; what an author gave as an example or default, and JSON does not know, becomes text."""
    option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(document(service, wirings, settings), default=str, option=option)


def index_page(title: str, mounted: Iterable[Mounted]) -> Handler:
    """A handler for `/`: each route with its methods, where it runs, a link if one can follow it, and a curl line."""
    routes = list(mounted)

    async def index(request: Request) -> Response:
        host = escape(request.headers.get("host", "localhost"), quote=True)
        body = "".join(_sections(routes, host))
        html = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>"
        )
        return Response(html.encode(), content_type=HTML)

    return index


def _sections(routes: list[Mounted], host: str) -> Iterable[str]:
    section = None
    for mounted in routes:
        first = mounted.path.split("/")[1]
        if first != section:
            section = first
            yield f"<h2>{escape(section or '/')}</h2>"
        path, route = escape(mounted.path), mounted.route
        can_follow = "GET" in route.methods and not route.parameters
        shown = f'<a href="{path}">{path}</a>' if can_follow else f"<code>{path}</code>"
        summary = escape((route.function.__doc__ or "").strip().partition("\n")[0])
        yield f'<p><b class="{route.kind}">{route.kind}</b> {escape(" ".join(route.methods))} {shown} {summary}</p>'
        yield f"<pre>{curl_line(mounted, host)}</pre>"


_DATA = {
    "": "",
    "form": " -F file=@FILE",
    "bytes": " --data-binary @FILE",
    "json": " -H 'content-type: application/json' -d '{}'",
}


def curl_line(mounted: Mounted, host: str) -> str:
    """One line to paste into a shell, as HTML text."""
    path = re.sub(r"\{(\w+)(:path)?\}", r"\1", mounted.path)
    method = mounted.route.methods[0]
    verb = "" if method == "GET" else f" -X {method}"
    data = _DATA[wiring_of(mounted).binder.body_kind]
    return escape(f"curl{verb} 'http://{{host}}{path}'{data}", quote=False).replace("{host}", host)
