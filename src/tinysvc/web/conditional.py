"""Conditional requests (RFC 9110, 13): 304 for an unchanged copy, 412 for a write that is based on a stale copy.

    if response := precondition(request, etag=row.version):
        return response
    return Response(row.text, headers=validators(etag=row.version))

A validator identifies one state of the resource at the path: an entity-tag, chosen by the author, or a date.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from math import inf

from ..core.errors import HTTPError
from ..core.requests import Request
from ..core.responses import Response

_TAG = re.compile(r"(?:W/)?[\x21\x23-\x7e\x80-\xff]*")  # RFC 9110, 8.8.3, without the quotes
_TAGS = re.compile(r'[ \t]*((?:W/)?"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|$)')
_HTTP_DATE = re.compile(r"[A-Za-z0-9 ,:-]{1,40}")


def precondition(request: Request, *, etag: str = "", last_modified: float | datetime | None = None) -> Response | None:
    """Evaluate the conditions of a request (RFC 9110, 13) against the current state of a resource.

    Args:
        request: The request.
        etag: Entity-tag of the current state, without quotes; "W/..." for a weak one. Empty, and no date: the resource
            does not exist.
        last_modified: Time of the last change, as a datetime or in seconds since 1970.

    Returns:
        A 304 response if the client of a GET or HEAD has the current state. None if the handler shall go on.

    Raises:
        HTTPError: 412, a write is based on another state.
        ValueError: `etag` cannot be an entity-tag.

    Example:
        ```python
        from tinysvc import Request, Response, io_route
        from tinysvc.web.conditional import precondition, validators

        @io_route("/note")
        async def note(request: Request) -> Response:
            tag = "v7"
            if response := precondition(request, etag=tag):
                return response
            return Response("text of version 7", headers=validators(etag=tag))
        ```
    """
    tag, modified = _quoted(etag), _seconds(last_modified)
    exists = bool(tag) or modified is not None
    if_match, if_none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if if_match is not None:
        if not (if_match.strip() == "*" and exists) and not _has(if_match, tag, weak=False):
            raise _failed("If-Match")
    elif modified is not None and modified > (read_date(request.headers.get("if-unmodified-since")) or inf):
        raise _failed("If-Unmodified-Since")
    reads = request.method in ("GET", "HEAD")
    if if_none_match is not None:
        if (if_none_match.strip() == "*" and exists) or _has(if_none_match, tag, weak=True):
            if not reads:
                raise _failed("If-None-Match")
            return _not_modified(etag, last_modified)
    elif reads and modified is not None:
        date = read_date(request.headers.get("if-modified-since"))
        if date is not None and modified <= date:
            return _not_modified(etag, last_modified)
    return None


def validators(*, etag: str = "", last_modified: float | datetime | None = None) -> list[tuple[str, str]]:
    """Return the header lines `ETag` and `Last-Modified` of a response (RFC 9110, 8.8).

    Args:
        etag: Entity-tag, without quotes; "W/..." for a weak one. Empty: no line.
        last_modified: Time of the last change, as a datetime or in seconds since 1970. None: no line.

    Returns:
        The lines, as (name, value).

    Raises:
        ValueError: `etag` cannot be an entity-tag.

    Example:
        ```python
        from tinysvc.web.conditional import validators

        assert validators(etag="v7", last_modified=0) == [
            ("etag", '"v7"'),
            ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ]
        ```
    """
    lines = [("etag", _quoted(etag))] if etag else []
    seconds = _seconds(last_modified)
    if seconds is not None:
        lines.append(("last-modified", formatdate(seconds, usegmt=True)))
    return lines


def _not_modified(etag: str, last_modified: float | datetime | None) -> Response:
    return Response(b"", 304, validators(etag=etag, last_modified=last_modified))


def _failed(condition: str) -> HTTPError:
    return HTTPError(412, f"The current state does not match {condition}: read it again before you change it.")


def _quoted(etag: str) -> str:
    if not _TAG.fullmatch(etag) or etag == "W/":
        raise ValueError(f"an etag is latin-1 text without quotes, spaces and control characters, not {etag!r}")
    weak, tag = ("W/", etag[2:]) if etag.startswith("W/") else ("", etag)
    return f'{weak}"{tag}"' if etag else ""


def _seconds(moment: float | datetime | None) -> int | None:
    """In whole seconds, the resolution of an HTTP date."""
    if isinstance(moment, datetime):
        moment = moment.timestamp()
    return None if moment is None else int(moment)


def _has(header: str, tag: str, *, weak: bool) -> bool:
    """Whether the list contains the tag. In weak comparison, W/"a" equals "a" (RFC 9110, 8.8.3.2)."""
    if not tag or (not weak and tag.startswith("W/")):
        return False
    tags = tags_in(header)
    return any(other.removeprefix("W/") == tag.removeprefix("W/") for other in tags) if weak else tag in tags


def tags_in(header: str) -> list[str]:
    """The entity-tags of the header, with their quotes, up to the first invalid one."""
    tags, position = [], 0
    while match := _TAGS.match(header, position):
        tags.append(match[1])
        position = match.end()
        if position == len(header):
            break
    return tags


def read_date(text: str | None) -> int | None:
    """An HTTP date in any of its three forms (RFC 9110, 5.6.7), in seconds since 1970; None if it is invalid."""
    if text is None or not _HTTP_DATE.fullmatch(text):
        return None
    try:
        asctime = "," not in text
        date = datetime.strptime(text, "%a %b %d %H:%M:%S %Y") if asctime else parsedate_to_datetime(text)
        return int(date.replace(tzinfo=UTC).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
