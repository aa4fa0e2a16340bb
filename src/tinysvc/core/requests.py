"""Request: what a client has asked for, and the addresses of both ends of its connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from itertools import count
from random import getrandbits
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from .errors import HTTPError
from .headers import TOKEN, Headers
from .query import parse_query

if TYPE_CHECKING:
    from .forms import FormData

MAX_REQUEST_ID = 128
"""Characters of an X-Request-Id that we take over into our logs; a longer one is replaced."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that promise to change nothing (RFC 9110, 9.2.1): nobody is harmed when their work is stopped half-way."""


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


def parse_cookies(lines: Iterable[str]) -> dict[str, str]:
    """The name-value pairs of Cookie headers. What is no pair is passed over: it does not hide the others."""
    found: dict[str, str] = {}
    for pair in ";".join(lines).split(";"):
        name, equals, value = pair.strip(" \t").partition("=")
        if equals and name:
            found.setdefault(name.rstrip(" \t"), value.lstrip(" \t").strip('"'))
    return found
