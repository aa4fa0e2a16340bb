"""What a client would like to have: Accept (RFC 9110, 12.5.1), and answers that follow it; redirects and links.

return negotiated(request, notes, html=page_of)         JSON, MessagePack, or a page for browsers
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from ..core.encoding import json_bytes, plain
from ..core.errors import HTTPError
from ..core.query import CONTROL_CHARACTERS
from ..core.requests import Request
from ..core.responses import HTML, JSON, MESSAGEPACK, Response, add_vary
from ..wire.codings import weights_of


def accepted(request: Request, types: Sequence[str]) -> str:
    """The one of `types` ("application/json", ...) that the client likes best; the first of equals. HTTPError 406."""
    header = request.headers.get("accept")
    if header is None or not header.strip():
        return types[0]
    weights = weights_of(header)
    best = max(types, key=lambda kind: _weight(weights, kind))
    if _weight(weights, best) <= 0:
        raise HTTPError(406, f"The client accepts none of {', '.join(types)}.")
    return best


def _weight(weights: dict[str, float], kind: str) -> float:
    """Of the most exact member that covers it (RFC 9110, 12.5.1)."""
    kind = kind.partition(";")[0].lower()
    for name in (kind, kind.partition("/")[0] + "/*", "*/*"):
        if name in weights:
            return weights[name]
    return 0.0


def negotiated(
    request: Request, value: Any, *, html: Callable[[Any], str] | None = None, status: int = 200
) -> Response:
    """`value` as JSON or MessagePack, or as the page that `html` makes of it, as the client accepts. HTTPError 406.

    MessagePack is msgspec's: dataclasses and Structs as maps, datetimes as its extension.
    """
    types = [JSON, MESSAGEPACK, *([HTML.partition(";")[0]] if html else [])]
    kind = accepted(request, types)
    if kind == JSON:
        response = Response(json_bytes(value), status, content_type=JSON)
    elif kind == MESSAGEPACK:
        response = Response(
            msgspec.msgpack.encode(plain(value, keep=(datetime, bytes))), status, content_type=MESSAGEPACK
        )
    else:
        assert html is not None
        response = Response(html(value).encode(), status, content_type=HTML)
    add_vary(response, "accept")
    return response


def redirect(location: str, status: int = 303) -> Response:
    """Send the client to another address: of this service ("/notes/7", "?page=2"), or a whole one ("https://...").

    303 has it ask with GET; 307 and 308 with the same method, 308 for good. ValueError for what a browser could take
    for another host than it looks like ("//evil.example", a backslash in the path, a control character), and for other
    schemes: so what a client has sent can be given here, after a look at whether it begins with "/".
    """
    if status not in (301, 302, 303, 307, 308):
        raise ValueError(f"a redirect has the status 301, 302, 303, 307 or 308, not {status!r}")
    return Response(b"", status, [("location", checked_location(location))])


def checked_location(location: str) -> str:
    """The address, percent-encoded where it must be. ValueError as in `redirect`."""
    scheme, colon, rest = location.partition(":")
    has_scheme = bool(colon) and not any(sign in scheme for sign in "/?#")
    if (
        not location
        or location != location.strip()
        or "\\" in re.split("[?#]", location, maxsplit=1)[0]  # a slash to browsers; behind the path it is data
        or any(ord(character) < 32 or ord(character) == 127 for character in location)
        or location.startswith("//")
        or (has_scheme and (scheme.lower() not in ("http", "https") or not rest.startswith("//")))
    ):
        raise ValueError(
            f'a redirect leads to a path of this service, as in "/notes/7", or to a whole address that begins with '
            f"http:// or https://, not to {location!r}"
        )
    return quote(location, safe="/?#[]@!$&'()*+,;=:%~")


def link(address: str, rel: str, **parameters: str) -> tuple[str, str]:
    """A Link header (RFC 8288), as in `headers=[link("/notes?page=2", "next")]`; parameters are quoted."""
    more = "".join(_parameter(name, value) for name, value in {"rel": rel, **parameters}.items())
    return "link", f"<{checked_location(address)}>{more}"


def attachment(filename: str, *, inline: bool = False) -> tuple[str, str]:
    """A Content-Disposition header (RFC 6266), as in `headers=[attachment("Übersicht 2024.pdf")]`: saved as a file.

    Any name can be given. Old clients get a plain one beside it. `inline`: shown by the browser, if it can, and saved
    under this name.
    """
    name = "".join("_" if CONTROL_CHARACTERS.match(sign) or sign in "/\\" else sign for sign in filename)
    name = name.encode(errors="replace").decode()
    plain_name = "".join(sign if sign.isascii() and sign not in '"%' else "_" for sign in name)
    value = f'{"inline" if inline else "attachment"}; filename="{plain_name}"'
    if name != plain_name:
        value += "; filename*=UTF-8''" + quote(name, safe="!#$&+^`|")
    return "content-disposition", value


def _parameter(name: str, value: str) -> str:
    if value.isascii():
        return f'; {name}="{_quoted(value)}"'
    return f"; {name}*=UTF-8''{quote(value, safe='')}"  # RFC 8288, 3.4.1


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
