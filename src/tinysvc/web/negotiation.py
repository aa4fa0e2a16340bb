"""Content negotiation by the Accept header (RFC 9110, 12.5.1); redirects, links and attachments.

return negotiated(request, notes, html=page_of)         # JSON, MessagePack, or a page for browsers
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from ..core.encoding import json_bytes, to_plain
from ..core.errors import HTTPError
from ..core.query import CONTROL_CHARACTERS
from ..core.requests import Request
from ..core.responses import HTML, JSON, MESSAGEPACK, Response, add_vary
from ..wire.codings import weights_of


def accepted(request: Request, types: Sequence[str]) -> str:
    """Choose the content type that the client prefers, by its `Accept` header (RFC 9110, 12.5.1).

    Args:
        request: The request.
        types: Content types that the handler can send, the preferred one first.

    Returns:
        One of `types`; the first of equal ones.

    Raises:
        HTTPError: 406, the client accepts none of them.

    Example:
        ```python
        from tinysvc import Request
        from tinysvc.core.headers import Headers
        from tinysvc.web.negotiation import accepted

        request = Request("GET", "/", headers=Headers([(b"accept", b"image/avif, image/*;q=0.5")]))
        assert accepted(request, ["image/png", "image/avif"]) == "image/avif"
        ```
    """
    header = request.headers.get("accept")
    if header is None or not header.strip():
        return types[0]
    weights = weights_of(header)
    best = max(types, key=lambda kind: _weight(weights, kind))
    if _weight(weights, best) <= 0:
        raise HTTPError(406, f"The client accepts none of {', '.join(types)}.")
    return best


def _weight(weights: dict[str, float], kind: str) -> float:
    """The weight of a media type: that of the most specific range that matches (RFC 9110, 12.5.1)."""
    kind = kind.partition(";")[0].lower()
    for name in (kind, kind.partition("/")[0] + "/*", "*/*"):
        if name in weights:
            return weights[name]
    return 0.0


def negotiated(
    request: Request, value: Any, *, html: Callable[[Any], str] | None = None, status: int = 200
) -> Response:
    """Send a value as JSON, MessagePack or HTML, by the client's `Accept` header (RFC 9110, 12.5.1).

    MessagePack is that of msgspec: dataclasses and Structs are maps, a datetime is its timestamp extension.

    Args:
        request: The request.
        value: The value.
        html: Makes a page of the value. None: the handler offers no HTML.
        status: HTTP status.

    Returns:
        The response, with `Vary: accept`.

    Raises:
        HTTPError: 406, the client accepts none of the types.
        UnencodableResult: The value cannot be encoded.

    Example:
        ```python
        from tinysvc import Request, Response, io_route
        from tinysvc.web.negotiation import negotiated

        def page(names: list[str]) -> str:
            return "".join(f"<p>{name}</p>" for name in names)

        @io_route("/names")
        async def names(request: Request) -> Response:
            return negotiated(request, ["Ada", "Grace"], html=page)
        ```
    """
    types = [JSON, MESSAGEPACK, *([HTML.partition(";")[0]] if html else [])]
    kind = accepted(request, types)
    if kind == JSON:
        response = Response(json_bytes(value), status, content_type=JSON)
    elif kind == MESSAGEPACK:
        response = Response(
            msgspec.msgpack.encode(to_plain(value, keep=(datetime, bytes))), status, content_type=MESSAGEPACK
        )
    else:
        assert html is not None
        response = Response(html(value).encode(), status, content_type=HTML)
    add_vary(response, "accept")
    return response


def redirect(location: str, status: int = 303) -> Response:
    """Redirect the client to another address (RFC 9110, 15.4).

    It is safe to pass an address that a client has sent, after a check that it begins with "/": addresses that a
    browser could take for another host are refused.

    Args:
        location: Path of this service ("/notes/7", "?page=2"), or a whole address ("https://...").
        status: 303: continue with GET. 307: repeat the method. 308: the same for ever. 301 and 302 are their old forms.

    Returns:
        The response.

    Raises:
        ValueError: The status is none of these, the scheme is not http or https, or a browser could take the address
            for another host ("//evil.example", a backslash in the path, a control character).

    Example:
        ```python
        from tinysvc import Response, io_route
        from tinysvc.web.negotiation import redirect

        @io_route("/notes", methods=["POST"])
        async def add() -> Response:
            return redirect("/notes/7")
        ```
    """
    if status not in (301, 302, 303, 307, 308):
        raise ValueError(f"the status of a redirect must be 301, 302, 303, 307 or 308, not {status!r}")
    return Response(b"", status, [("location", checked_location(location))])


def checked_location(location: str) -> str:
    """The address, percent-encoded where needed. ValueError as in `redirect`."""
    scheme, colon, rest = location.partition(":")
    has_scheme = bool(colon) and not any(character in scheme for character in "/?#")
    if (
        not location
        or location != location.strip()
        or "\\" in re.split("[?#]", location, maxsplit=1)[0]  # browsers read it as a slash; behind the path it is data
        or any(ord(character) < 32 or ord(character) == 127 for character in location)
        or location.startswith("//")
        or (has_scheme and (scheme.lower() not in ("http", "https") or not rest.startswith("//")))
    ):
        raise ValueError(
            f'the location must be a path of this service, as in "/notes/7", or a whole address that begins with '
            f"http:// or https://, not {location!r}"
        )
    return quote(location, safe="/?#[]@!$&'()*+,;=:%~")


def link(address: str, rel: str, **parameters: str) -> tuple[str, str]:
    """Return a `Link` header line (RFC 8288).

    Args:
        address: Target, as in `redirect`.
        rel: Relation type, as in "next".
        **parameters: Further parameters, as in `title="Page 2"`.

    Returns:
        The line, as (name, value).

    Raises:
        ValueError: The address is refused, as in `redirect`.

    Example:
        ```python
        from tinysvc import Response
        from tinysvc.web.negotiation import link

        response = Response([1, 2, 3], headers=[link("/notes?page=2", "next")])
        assert response.headers == [("link", '</notes?page=2>; rel="next"')]
        ```
    """
    more = "".join(_parameter(name, value) for name, value in {"rel": rel, **parameters}.items())
    return "link", f"<{checked_location(address)}>{more}"


def attachment(filename: str, *, inline: bool = False) -> tuple[str, str]:
    r"""Return a `Content-Disposition` header line (RFC 6266): the browser saves the response as a file.

    Args:
        filename: Name of the file, in any letters. Old clients get an ASCII form of it.
        inline: Let the browser show the response if it can; the name is used if the user saves it.

    Returns:
        The line, as (name, value).

    Example:
        ```python
        from tinysvc import Response
        from tinysvc.web.negotiation import attachment

        response = Response(b"a,b\n1,2\n", headers=[attachment("numbers.csv")], content_type="text/csv")
        assert response.headers == [("content-disposition", 'attachment; filename="numbers.csv"')]
        ```
    """
    name = "".join("_" if CONTROL_CHARACTERS.match(each) or each in "/\\" else each for each in filename)
    name = name.encode(errors="replace").decode()
    ascii_name = "".join(each if each.isascii() and each not in '"%' else "_" for each in name)
    value = f'{"inline" if inline else "attachment"}; filename="{ascii_name}"'
    if name != ascii_name:
        value += "; filename*=UTF-8''" + quote(name, safe="!#$&+^`|")
    return "content-disposition", value


def _parameter(name: str, value: str) -> str:
    if value.isascii():
        return f'; {name}="{_quoted(value)}"'
    return f"; {name}*=UTF-8''{quote(value, safe='')}"  # RFC 8288, 3.4.1


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
