"""Request, Response and Headers: the small values that pass between the floors."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from random import getrandbits
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, SupportsIndex, TypeVar, overload
from urllib.parse import unquote

from .encoding import json_bytes
from .errors import HTTPError, TinysvcError, UnencodableResult
from .query import parse_query

if TYPE_CHECKING:
    from .forms import FormData

MAX_REQUEST_ID = 128
"""Characters of an X-Request-Id that we take over into our logs; a longer one is replaced."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that promise to change nothing (RFC 9110, 9.2.1): nobody is harmed when their work is stopped half-way."""

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_LENGTH = re.compile(r"0|[1-9][0-9]{0,17}")
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5, as latin-1

DRAINED = "the server drains"
"""The message of a cancellation that ends a stream because the server drains: nothing waits for its thread then."""

CUT_OFF = "the time of the drain is over"
"""The message of a cancellation that ends also the closing of resources."""

T = TypeVar("T")


class Headers(Mapping[str, str]):
    """The header fields of a request: a mapping whose names are case-insensitive.

    Built on the parser's byte pairs (names in lower case) and decoded, as latin-1, on first use. A field that came
    more than once is joined with a comma, as RFC 9110, 5.3 allows; `get_all` returns its lines.
    """

    __slots__ = ("_lines", "raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.raw = raw
        self._lines: dict[str, list[str]] | None = None

    def _decoded(self) -> dict[str, list[str]]:
        if self._lines is None:
            lines: dict[str, list[str]] = {}
            for name, value in self.raw:
                lines.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
            self._lines = lines
        return self._lines

    def get_all(self, name: str) -> list[str]:
        """The values of every line called `name`, in order; an empty list if there is none."""
        return list(self._decoded().get(name.lower(), ()))

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._decoded()[name.lower()])

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    @overload
    def get(self, name: str, /, default: T) -> str | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """As a mapping has it; without an exception for what is not there, as most optional fields are not."""
        lines = self._decoded().get(name.lower())
        return default if lines is None else ", ".join(lines)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._decoded()

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded())

    def __len__(self) -> int:
        return len(self._decoded())

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


class Peer(NamedTuple):
    """Both ends of a connection: socket addresses as `(host, port)`, or the socket's path for a Unix socket."""

    client: Any
    server: Any
    scheme: str


_NOBODY = Peer(None, None, "http")

_PROCESS = f"{getrandbits(48):012x}-"
_numbers = count(1)
# Together the ids of our own: unique, in the order of the requests, and cheap.


class Request:
    """One HTTP request.

    `method` in capitals; `raw_path` and `raw_query` as they came on the wire (str, percent-encoded); `headers`;
    `path_params` (set by routing, decoded); `client` and `server`, the socket addresses of both ends as
    `(host, port)`, or the socket's path where it is a Unix socket; `scheme`; `host`, what the client calls the server.
    Behind a trusted proxy (`proxy_headers`), client, scheme and host are those that the proxy saw.
    """

    upgrade: Any
    """The connection, where the client offers to change protocols on it; else not set. See websocket_protocol.py."""

    served_by: Any
    """What knows where handlers are served: set on the event loop; in the test of a function, a Service will do."""

    background: Any
    """The tasks that run after the answer, where the route takes them; else not set. See background.py."""

    root_path: str
    """The prefix that a proxy takes off each path (`root_path`, `X-Forwarded-Prefix`); empty if there is none."""

    keeps_form: bool
    """Set where the handler reads the body of a form that middleware may have parsed: `form()` keeps the body, too."""

    compresses: bool
    """Set where the response may be compressed, which weakens its entity-tag; see conditional.py."""

    __slots__ = (
        "_body",
        "_host",
        "_id",
        "_is_kept",
        "_query",
        "_taken",
        "background",
        "compresses",
        "form_data",
        "headers",
        "keeps_form",
        "method",
        "on_disconnect",
        "path_params",
        "peer",
        "raw_path",
        "raw_query",
        "resources",
        "root_path",
        "served_by",
        "upgrade",
    )

    def __init__(
        self,
        method: str,
        raw_path: str,
        raw_query: str = "",
        headers: Headers | None = None,
        body: bytes | memoryview | AsyncIterator[bytes] = b"",
        path_params: dict[str, str] | None = None,
        peer: Peer = _NOBODY,
        id: str = "",  # noqa: A002 - as the property
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.raw_query = raw_query
        self.headers = Headers() if headers is None else headers
        self._body = body
        self._is_kept = False  # whether `body` was asked for it
        self._taken = False  # whether some of the body was streamed, and is not kept
        self._query: dict[str, list[str]] | None = None
        self.path_params = path_params
        self.peer = peer
        self.root_path = ""
        self._id = id
        self._host: str | None = None
        self.form_data: FormData | None = None  # once it has been read
        self.resources: Any = (
            None  # of a request that has some: their values by name, or for a worker the pickle of that
        )
        self.on_disconnect: Callable[[], object] | None = None

    @property
    def id(self) -> str:
        """What the client calls this request in `X-Request-Id`, where that is a token; else a name of our own."""
        if not self._id:
            self._id = self._given_id() or _PROCESS + str(next(_numbers))
        return self._id

    def _given_id(self) -> str:
        for name, value in self.headers.raw:
            if name == b"x-request-id":
                given = value.decode("latin-1")
                return given if len(given) <= MAX_REQUEST_ID and TOKEN.fullmatch(given) else ""
        return ""

    @property
    def client(self) -> Any:
        return self.peer.client

    @property
    def server(self) -> Any:
        return self.peer.server

    @property
    def scheme(self) -> str:
        return self.peer.scheme

    @property
    def host(self) -> str:
        """Host and, where it is written, port; empty if an HTTP/1.0 client did not say."""
        return self.headers.get("host", "") if self._host is None else self._host

    @host.setter
    def host(self, host: str) -> None:
        self._host = host

    @property
    def path(self) -> str:
        """The path, percent-decoded. Routing does not use it: there `%2F` is data, not a separator."""
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, list[str]]:
        """The query string as name -> values, in order. A 400 if it holds more than MAX_QUERY_FIELDS fields."""
        query = self._query
        if query is None:
            query = self._query = parse_query(self.raw_query)
        return query

    @property
    def has_arrived(self) -> bool:
        """Whether the whole body is here, so that `body()` waits for nothing."""
        return isinstance(self._body, (bytes, memoryview))

    def limit_body(self, size: int) -> None:
        """Take a body of at most `size` bytes, instead of the server's `max_body_size`: 413 for a longer one.

        It must be called before anything of the body is read.
        """
        if isinstance(self._body, (bytes, memoryview)):
            if len(self._body) > size:
                raise HTTPError(413, f"The body has {len(self._body)} bytes; at most {size} are taken.")
        elif limit := getattr(self._body, "limit", None):
            limit(size)

    async def body(self) -> bytes:
        """The whole body, which is then kept. 413 if it is larger than the server's, or the route's, `max_body_size`.

        RuntimeError if some of it was streamed before.
        """
        self._check_not_taken()
        if isinstance(self._body, memoryview):
            self._body = bytes(self._body)
        elif not isinstance(self._body, bytes):
            whole = getattr(self._body, "whole", None)  # what a connection reads puts itself together, in steps
            self._body = await whole() if whole else b"".join([chunk async for chunk in self._body])
        self._is_kept = True
        return self._body

    def _check_not_taken(self) -> None:
        """The same error whether the body came whole with its head or in pieces: never a part of it, by chance."""
        if self._taken:
            raise RuntimeError(
                "some of the request's body was streamed before, and is not kept; where several read it (middleware "
                "and a handler, say), the first one calls await request.body(), which keeps it"
            )

    async def stream(self, *, kept: bool = False) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives. No more comes than is read.

        It can be read once: RuntimeError for a second reader, unless `body()` keeps it.

        `kept`: the pieces stay in memory until the request ends, so that they count against `max_body_memory`.
        """
        self._check_not_taken()
        if isinstance(self._body, (bytes, memoryview)):
            if self._body:
                self._taken = not self._is_kept
                yield bytes(self._body)
            return
        if kept and (keep := getattr(self._body, "keep", None)):
            keep()
        async for chunk in self._body:
            self._taken = True
            yield chunk

    def keep_body(self, body: bytes) -> None:
        """What was streamed, put together: others may read it again."""
        self._body, self._taken, self._is_kept = body, False, True

    async def form(self) -> FormData:
        """The fields and files of a form, urlencoded or multipart (RFC 7578), read as they come; once, then kept.

        HTTPError 415 for a body that is no form, 400 for a malformed one, 413 for one over a limit: see forms.py.
        """
        if self.form_data is None:
            from .forms import read_form

            if getattr(self, "keeps_form", False):
                await self.body()
            keep = getattr(self._body, "keep", None)
            self.form_data = await read_form(self.headers.get("content-type", ""), self.stream(), keep)
        return self.form_data

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str:
        """The path at which the whole service that got this request serves `handler`: see Service.url_for.

        It begins with the `root_path`.

        RuntimeError in a worker process, which knows its own routes only.
        """
        served_by = getattr(self, "served_by", None)
        if served_by is None:
            raise RuntimeError(
                "request.url_for knows no routes here; call it in an @io_route, where they are served; "
                "in the test of a function set request.served_by = Service(...)"
            )
        url: str = served_by.url_for(handler, **parameters)
        return self.root_path + url

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by their names; of several the first, which has the longest path (RFC 6265, 5.4)."""
        return parse_cookies(self.headers.get_all("cookie"))

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.raw_path}>"


class Response:
    """One HTTP response.

    `content`: bytes, a memoryview (of any size, it is not copied) and str are sent as they are; None is an empty body;
    FileContent is sent from the file; an iterator or async iterator is streamed; any other value becomes JSON.
    `content_type` defaults to what fits the content. `headers` is a mapping or an iterable of pairs; a name or value
    that could break out of its line is a ValueError, here and now (RFC 9110, 5.5). A stream whose length in bytes is
    known says so by `headers={"content-length": "1000"}`; if it then yields more or less, the connection is cut off.
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
            _checked("content-type", content_type)
        self.content_type = content_type
        self.headers: list[tuple[str, str]] = HeaderLines()
        if headers:
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                self.add_header(name, value)

    def add_header(self, name: str, value: str) -> None:
        """Add one header line. ValueError for a bad name or value, and for the names the server itself writes."""
        name = name.lower()
        if name in SERVERS_OWN and not (name == "content-length" and self._may_declare(value)):
            raise ValueError(f"the header {name!r} is written by the server; {SERVERS_OWN[name]}")
        if name == "content-type":
            self.content_type = _checked(name, value)
        else:
            self.headers.append((name, value))

    def _may_declare(self, length: str) -> bool:
        """Whether the content is a stream that can say its length."""
        if not isinstance(self.content, (Iterator, AsyncIterator)):
            return False
        if not isinstance(length, str) or not _LENGTH.fullmatch(length) or "content-length" in dict(self.headers):
            raise ValueError(f"content-length takes one decimal number of bytes, as text, not {length!r}")
        return True

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.content_type}>"


class Failed(Response):
    """To nobody, as the connection is over; `error` is what the handler has raised, for its request's resources."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__(b"", 204)
        self.error = error


def parse_cookies(lines: Iterable[str]) -> dict[str, str]:
    """The name-value pairs of Cookie headers. What is no pair is passed over: it does not hide the others."""
    found: dict[str, str] = {}
    for pair in ";".join(lines).split(";"):
        name, equals, value = pair.strip(" \t").partition("=")
        if equals and name:
            found.setdefault(name.rstrip(" \t"), value.lstrip(" \t").strip('"'))
    return found


def add_vary(response: Response, *names: str) -> None:
    """Add request headers to what the response depends on (RFC 9110, 12.5.5); those that stand there stay once."""
    said = [part.strip() for name, value in response.headers if name == "vary" for part in value.split(",")]
    known = {part.lower() for part in said}
    said += [name for name in names if name.lower() not in known]
    response.headers = [field for field in response.headers if field[0] != "vary"]
    response.add_header("vary", "*" if "*" in known else ", ".join(said))


def make_private(response: Response) -> None:
    """Let no shared cache keep the response (RFC 9111, 5.2.2.7), whatever its Cache-Control says so far."""
    others = [field for field in response.headers if field[0].lower() != "cache-control"]
    said = [value for name, value in response.headers if name.lower() == "cache-control"]
    kept = [part.strip() for part in ",".join(said).split(",")]
    kept = [part for part in kept if part and not part.lower().startswith(("public", "s-maxage"))]
    if not any(part.lower() in ("private", "no-store") for part in kept):
        kept.insert(0, "private")
    response.headers = [*others, ("cache-control", ", ".join(kept))]


class FileContent(NamedTuple):
    """A response's content: `size` bytes of an open file, from `offset` on.

    The kernel sends them where it can (sendfile). The server closes the file, whatever happens.
    """

    file: BinaryIO
    offset: int
    size: int


def json_response(content: bytes) -> Response:
    """`content`, which is JSON, with status 200: what most handlers answer, and what needs no check."""
    response = _new(Response)
    response.content, response.status, response.content_type, response.headers = content, 200, JSON, HeaderLines()
    return response


_new = object.__new__

JSON, TEXT, OCTETS = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
NDJSON, HTML, PROBLEM = "application/x-ndjson", "text/html; charset=utf-8", "application/problem+json"
EVENTS, MESSAGEPACK = "text/event-stream; charset=utf-8", "application/msgpack"
LIVE = frozenset({EVENTS, NDJSON})
"""Content types of streams that may have no end: a drain ends them in order, as it closes WebSockets."""
COMMON_TYPES = frozenset({JSON, TEXT, OCTETS, NDJSON, HTML, PROBLEM, EVENTS})
"""Need no check, on the hot path."""

SERVERS_OWN = {
    "content-length": "it follows from the content, where that is no stream",
    "transfer-encoding": "return an iterator to stream",
    "connection": "keep-alive is the server's business",
    "date": "it is added to every response",
}
"""Headers that a handler does not set, and why."""


def _checked(name: str, value: str) -> str:
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        raise ValueError(f"a header name must be an RFC 9110 token, not {name!r}")
    if not isinstance(value, str) or not FIELD_VALUE.fullmatch(value):
        raise ValueError(bad_header_value(name, value))
    return value


def bad_header_value(name: str, value: object) -> str:
    """The sentence for a value that cannot stand in a header: it names the character, and how to write it."""
    if not isinstance(value, str):
        return f"the value of the header {name!r} must be text, not {value!r}"
    bad = next((character for character in value if not FIELD_VALUE.fullmatch(character)), "")
    if bad <= "\xff":
        return f"the value of the header {name!r} must be one line of text, but holds {bad!r}: {value!r}"
    remedy = "percent-encode it as parameters do, in name*=UTF-8''..."
    if name.lower() == "content-disposition":
        remedy = "take headers=[attachment(\"name\")], which writes filename*=UTF-8''..."
    return (
        f"the value of the header {name!r} holds {bad!r}, and headers are Latin-1: {value!r}; {remedy} (RFC 6266, 8187)"
    )


class HeaderLines(list[tuple[str, str]]):
    """A response's header lines; what cannot stand in a header is a ValueError where it is added."""

    __slots__ = ()

    def append(self, line: tuple[str, str]) -> None:
        super().append(_checked_line(line))

    def insert(self, index: SupportsIndex, line: tuple[str, str]) -> None:
        super().insert(index, _checked_line(line))

    def extend(self, lines: Iterable[tuple[str, str]]) -> None:
        super().extend([_checked_line(line) for line in lines])

    def __iadd__(self, lines: Iterable[tuple[str, str]]) -> HeaderLines:  # type: ignore[override,misc]
        self.extend(lines)
        return self

    def __setitem__(self, index: Any, new: Any) -> None:
        new = [_checked_line(line) for line in new] if isinstance(index, slice) else _checked_line(new)
        super().__setitem__(index, new)

    def copy(self) -> HeaderLines:
        new = HeaderLines()
        list.extend(new, self)
        return new


def _checked_line(line: tuple[str, str]) -> tuple[str, str]:
    name, value = line
    _checked(name, value)
    return name.lower(), value


def check_assigned(response: Response) -> None:
    """UnencodableResult for text, in headers that were assigned as a whole, that no header can hold."""
    for name, value in [("content-type", response.content_type), *response.headers]:
        if isinstance(value, str) and not FIELD_VALUE.fullmatch(value):
            raise UnencodableResult(bad_header_value(name, value))


def problem_response(error: TinysvcError, request: Request | None = None) -> Response:
    """The error as `application/problem+json` (RFC 9457); a 5xx names its request, as the log does."""
    members = error.problem()
    if error.status >= 500 and request is not None:
        members["request_id"] = request.id
    try:
        content = json_bytes(members)
    except UnencodableResult:  # the error is what counts
        content = json.dumps(members, default=str).encode()
    try:
        response = Response(content, error.status, error.headers, content_type=PROBLEM)
    except ValueError as bad_header:  # the line to mend is where the error was raised
        raise bad_header.with_traceback(error.__traceback__) from None
    if error.status >= 500 and request is not None:
        name_request(response, request)
    return response


def name_request(response: Response, request: Request) -> None:
    """Let the response carry the id of its request, unless it has one."""
    if not any(name.lower() == "x-request-id" for name, _ in response.headers):
        response.headers.append(("x-request-id", request.id))


Handler = Callable[[Request], Awaitable[Response]]
"""Everything that answers has this shape: an io handler, the cpu adapter, middleware's `call_next`, a service."""

Middleware = Callable[[Request, Handler], Awaitable[Response]]
"""What stands around handlers: `async def m(request, call_next)`. `call_next` answers; it does not raise."""


async def close_content(content: Any) -> None:
    """Of a stream or a file that is not sent to its end."""
    if isinstance(content, FileContent):
        content.file.close()
    close = getattr(content, "aclose", None)
    if close is not None:
        try:
            await close()
        except (Exception, SystemExit, KeyboardInterrupt):  # no handler ends the server
            logging.getLogger("tinysvc.http").exception("%r failed while it was closed", content)
