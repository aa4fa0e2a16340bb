"""Response: its content, its checked headers, and errors as problem documents (RFC 9457)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from .encoding import json_bytes
from .errors import TinysvcError, UnencodableResult
from .headers import FIELD_VALUE, SERVER_HEADERS, HeaderLines, bad_header_value, check_field
from .requests import Request

_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")


class Response:
    """One HTTP response.

    Args:
        content: bytes, memoryview and str are sent as they are, and a memoryview is not copied. None: an empty body.
            `FileContent` is sent from its file. An iterator or async iterator is streamed. Other values become JSON.
        status: HTTP status, 200 to 599.
        headers: Header lines, as a mapping or as pairs. A stream of known length has its `content-length` here; the
            connection is closed if the stream then yields another length.
        content_type: Content type. None: the one that fits the content.

    Raises:
        ValueError: The status is out of range, a header cannot stand in its line (RFC 9110, 5.5), or the server itself
            writes this header.

    Example:
        ```python
        from tinysvc import Response, io_route

        @io_route("/items", methods=["POST"])
        async def add() -> Response:
            return Response({"number": 7}, 201, {"location": "/items/7"})
        ```
    """

    __slots__ = ("content", "content_type", "headers", "status")

    def __init__(
        self,
        content: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"a response takes a status from 200 to 599, not {status}")
        self.content = content
        self.status = status
        if content_type is not None and content_type not in COMMON_TYPES:
            check_field("content-type", content_type)
        self.content_type = content_type
        self.headers: list[tuple[str, str]] = HeaderLines()
        if headers:
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                self.add_header(name, value)

    def add_header(self, name: str, value: str) -> None:
        """Add one header line.

        Args:
            name: Name of the header, in any case.
            value: Value: one line of Latin-1 text.

        Raises:
            ValueError: Name or value cannot stand in a header, or the server itself writes this header.
        """
        name = name.lower()
        if name in SERVER_HEADERS and not (name == "content-length" and self._may_declare(value)):
            raise ValueError(f"the header {name!r} is written by the server; {SERVER_HEADERS[name]}")
        if name == "content-type":
            self.content_type = check_field(name, value)
        else:
            self.headers.append((name, value))

    def _may_declare(self, length: str) -> bool:
        """Whether the content is a stream, whose length the handler may declare."""
        if not isinstance(self.content, (Iterator, AsyncIterator)):
            return False
        if not isinstance(length, str) or not _LENGTH.fullmatch(length) or "content-length" in dict(self.headers):
            raise ValueError(f"content-length must be one decimal number of bytes, as text, not {length!r}")
        return True

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.content_type}>"


def add_vary(response: Response, *names: str) -> None:
    """Add the names of request headers to Vary (RFC 9110, 12.5.5), without duplicates."""
    names_so_far = [part.strip() for name, value in response.headers if name == "vary" for part in value.split(",")]
    known = {part.lower() for part in names_so_far}
    names_so_far += [name for name in names if name.lower() not in known]
    response.headers = [field for field in response.headers if field[0] != "vary"]
    response.add_header("vary", "*" if "*" in known else ", ".join(names_so_far))


def make_private(response: Response) -> None:
    """Forbid shared caches to store the response (RFC 9111, 5.2.2.7), in place of what Cache-Control allows so far."""
    others = [field for field in response.headers if field[0].lower() != "cache-control"]
    directives = [value for name, value in response.headers if name.lower() == "cache-control"]
    kept = [part.strip() for part in ",".join(directives).split(",")]
    kept = [part for part in kept if part and not part.lower().startswith(("public", "s-maxage"))]
    if not any(part.lower() in ("private", "no-store") for part in kept):
        kept.insert(0, "private")
    response.headers = [*others, ("cache-control", ", ".join(kept))]


class FileContent(NamedTuple):
    """Content of a response: a part of an open file. The kernel sends it where it can (sendfile).

    The server closes the file in any case.

    Args:
        file: A binary file.
        offset: First byte that is sent.
        size: Bytes that are sent.

    Example:
        ```python
        import os

        from tinysvc import Response, io_route
        from tinysvc.core.responses import FileContent

        @io_route("/log")
        async def log() -> Response:
            file = open("service.log", "rb")
            return Response(FileContent(file, 0, os.fstat(file.fileno()).st_size), content_type="text/plain")
        ```
    """

    file: BinaryIO
    offset: int
    size: int


def json_response(content: bytes) -> Response:
    """A 200 whose content is JSON already: the result of most handlers, made without checks."""
    response = _new(Response)
    response.content, response.status, response.content_type, response.headers = content, 200, JSON, HeaderLines()
    return response


_new = object.__new__

JSON, TEXT, OCTETS = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
NDJSON, HTML, PROBLEM = "application/x-ndjson", "text/html; charset=utf-8", "application/problem+json"
EVENTS, MESSAGEPACK = "text/event-stream; charset=utf-8", "application/msgpack"
MESSAGE = "application/grpc"
"""Content that is one message of gRPC, or a stream of them: a protocol of its own sends it, not HTTP."""
ENDLESS_TYPES = frozenset({EVENTS, NDJSON})
"""Content types of streams that may have no end: a drain ends them in an orderly way, as it closes WebSockets."""
COMMON_TYPES = frozenset({JSON, TEXT, OCTETS, NDJSON, HTML, PROBLEM, EVENTS, MESSAGE})
"""Content types that need no check, on the hot path."""


def check_headers(response: Response) -> None:
    """UnencodableResult if headers that were assigned as a whole contain text that no header can hold."""
    for name, value in [("content-type", response.content_type), *response.headers]:
        if isinstance(value, str) and not FIELD_VALUE.fullmatch(value):
            raise UnencodableResult(bad_header_value(name, value))


def problem_response(error: TinysvcError, request: Request | None = None) -> Response:
    """The error as `application/problem+json` (RFC 9457). A 5xx has the request id, which the log has, too."""
    members = error.problem()
    if error.status >= 500 and request is not None:
        members["request_id"] = request.id
    try:
        content = json_bytes(members)
    except UnencodableResult:  # still report the error itself
        content = json.dumps(members, default=str).encode()
    try:
        response = Response(content, error.status, error.headers, content_type=PROBLEM)
    except ValueError as bad_header:  # show the line that raised the error: that line must be corrected
        raise bad_header.with_traceback(error.__traceback__) from None
    if error.status >= 500 and request is not None:
        add_request_id(response, request)
    return response


def add_request_id(response: Response, request: Request) -> None:
    """Add `X-Request-Id`, unless the response has it."""
    if not any(name.lower() == "x-request-id" for name, _ in response.headers):
        response.headers.append(("x-request-id", request.id))


Handler = Callable[[Request], Awaitable[Response]]
"""The type of a function that handles requests: what middleware gets as `call_next`.

Example:
    ```python
    from tinysvc import Handler, Request, Response

    async def counted(request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        response.add_header("x-path-length", str(len(request.path)))
        return response
    ```
"""

Middleware = Callable[[Request, Handler], Awaitable[Response]]
"""The type of middleware: `async def m(request, call_next)`. `call_next(request)` returns a response; it never raises.

Example:
    ```python
    from tinysvc import Handler, Middleware, Request, Response, Service, io_route

    @io_route("/hello")
    async def hello() -> str:
        return "hello"

    def only_for(host: str) -> Middleware:
        async def check(request: Request, call_next: Handler) -> Response:
            return await call_next(request) if request.host == host else Response("wrong host", 421)

        return check

    service = Service(hello, middleware=[only_for("shop.example")])
    ```
"""


async def close_content(content: Any) -> None:
    """Close a stream or a file that is not sent to its end."""
    if isinstance(content, FileContent):
        content.file.close()
    close = getattr(content, "aclose", None)
    if close is not None:
        try:
            await close()
        except (Exception, SystemExit, KeyboardInterrupt):  # no exception of a handler ends the server
            logging.getLogger("tinysvc.http").exception("%r failed while it was closed", content)
