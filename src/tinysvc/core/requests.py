"""Request: method, target, headers and body of a request, and both ends of its connection.

Each attribute is declared and has a value from the beginning. They have four sources:

    the head         method, raw_path, raw_query, headers and the body
    the connection   peer; for few requests also time_limit and the pieces of a body (`receive_body_from`)
    the service      served_by, path_params, form_data, resources
    both             on_disconnect: the service sets it, the connection calls it
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import count
from random import getrandbits
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from .budget import current_deadline, sooner
from .errors import HTTPError
from .headers import TOKEN, Headers
from .query import parse_query

if TYPE_CHECKING:
    from .form_data import FormData

MAX_REQUEST_ID = 128
"""Characters of an X-Request-Id that the log takes over; a longer one is replaced."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, 9.2.1): it is safe to stop their handler half-way."""


class Peer(NamedTuple):
    """Both ends of a connection: socket addresses as `(host, port)`, or the socket's path for a Unix socket.

    It travels to workers in MessagePack, which has no tuples: there `(host, port)` is a list.

    A request has a Peer of its own if its client offers to change the protocol, and behind trusted proxies.
    """

    client: Any
    server: Any
    scheme: str
    host: str = ""
    """Host that a proxy reports; empty: that of the `Host` header."""
    root_path: str = ""
    """Prefix that a proxy removes from each path."""
    upgrade: Any = None
    """The connection, if the client offers to change its protocol: see `UpgradableConnection`."""


_NO_PEER = Peer(None, None, "http")


_PROCESS = f"{getrandbits(48):012x}-"
_numbers = count(1)
# Together they make a unique request id, cheaply, in the order of the requests.


class ReceivedBody(AsyncIterator[bytes]):
    """The pieces of a body that a connection still receives."""

    @abstractmethod
    def limit(self, size: int) -> None:
        """Set the limit of this body in bytes, before it is read."""

    @abstractmethod
    def keep(self) -> None:
        """The pieces that are read from now on are kept: count them until the request ends."""

    @abstractmethod
    async def whole(self) -> bytes:
        """The rest of the body, joined in steps. After a cancellation it can be called again."""


_UNREAD, _FORM_KEEPS, _KEPT, _STREAMED = range(4)
# The states of a body: not read; not read, and `form()` must keep it; kept by `body()`; a part was streamed, and lost.


class Request:
    """One HTTP request. Handlers, middleware and error handlers get it; tests of functions make their own.

    `client`, `scheme` and `host` are those that a trusted proxy saw (`proxy_headers`).

    Args:
        method: Method, in capitals.
        raw_path: Path as it was sent, percent-encoded.
        raw_query: Query string as it was sent, percent-encoded, without "?".
        headers: Header fields. None: no fields.
        body: The body, or the stream of its pieces.
        path_params: Path parameters by name, decoded; the router sets them.
        peer: Both ends of the connection: `client`, `server` and `scheme`.
        id: Id of the request. Empty: `X-Request-Id`, or a new one.
        served_by: The service for `url_for`. A server sets it; the test of a function may give its `Service(...)`.

    Example:
        ```python
        import asyncio

        from tinysvc import Request

        request = Request("POST", "/items/a%20b", "page=2", body=b"{}")
        assert (request.path, request.query) == ("/items/a b", {"page": ["2"]})
        assert asyncio.run(request.body()) == b"{}"
        ```
    """

    __slots__ = (
        "_body",
        "_body_state",
        "_id",
        "_query",
        "form_data",
        "headers",
        "method",
        "on_disconnect",
        "path_params",
        "peer",
        "raw_path",
        "raw_query",
        "resources",
        "served_by",
        "time_limit",
    )

    def __init__(
        self,
        method: str,
        raw_path: str,
        raw_query: str = "",
        headers: Headers | None = None,
        body: bytes | memoryview | AsyncIterator[bytes] = b"",
        path_params: dict[str, str] | None = None,
        peer: Peer = _NO_PEER,
        id: str = "",  # noqa: A002 - as the property
        served_by: Any = None,
    ) -> None:
        self.method = method
        self.raw_path = raw_path
        self.raw_query = raw_query
        self.headers = Headers() if headers is None else headers
        self._body = body
        self._body_state = 0  # _UNREAD; as a literal, because this is a hot path
        self._query: dict[str, list[str]] | None = None
        self.path_params = path_params
        self.peer = peer
        self._id = id
        self.served_by = served_by  # in a server: its RunningService
        self.form_data: FormData | None = None  # the parsed form
        self.resources: Any = None  # the values of the request's resources by name; for a worker, their pickle
        self.on_disconnect: Callable[[], object] | None = None  # None: the connection cancels a safe method's handler
        self.time_limit: float | None = None  # point in time (time.monotonic) when the client gives up

    @property
    def id(self) -> str:
        """The client's `X-Request-Id` if that is a token (RFC 9110, 5.6.2), else a new unique id."""
        if not self._id:
            self._id = self._client_id() or _PROCESS + str(next(_numbers))
        return self._id

    def _client_id(self) -> str:
        for name, value in self.headers.raw:
            if name == b"x-request-id":
                given = value.decode("latin-1")
                return given if len(given) <= MAX_REQUEST_ID and TOKEN.fullmatch(given) else ""
        return ""

    @property
    def is_timed(self) -> bool:
        """Whether a timer stops the calling code when the client gives up, or before."""
        deadline = current_deadline()
        return deadline is not None and self.time_limit is not None and deadline <= self.time_limit

    @property
    def budget(self) -> float | None:
        """Seconds that are left for the response: of the client's `Request-Timeout` and the route's `timeout`.

        None: the request has no deadline. See `seconds_left` for code that has no request.
        """
        deadline = sooner(current_deadline(), self.time_limit)
        return None if deadline is None else max(0.0, deadline - monotonic())

    @property
    def client(self) -> Any:
        """Address of the client: `(host, port)`, or the path of a Unix socket."""
        return _address(self.peer.client)

    @property
    def server(self) -> Any:
        """Address of the server that the client connected to: `(host, port)`, or the path of a Unix socket."""
        return _address(self.peer.server)

    @property
    def scheme(self) -> str:
        """Either "http" or "https"."""
        return self.peer.scheme

    @property
    def host(self) -> str:
        """Host and, if it was sent, port of the `Host` header; empty for an HTTP/1.0 request without one."""
        return self.peer.host or self.headers.get("host", "")

    @property
    def root_path(self) -> str:
        """Prefix that a proxy removes from each path (`root_path`, `X-Forwarded-Prefix`); empty if there is none."""
        return self.peer.root_path

    @property
    def path(self) -> str:
        """The path, percent-decoded. Routing does not use it: there `%2F` is data, not a separator."""
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, list[str]]:
        """The values of the query string by name, in order. A query with more than 1,000 fields is a 400."""
        query = self._query
        if query is None:
            query = self._query = parse_query(self.raw_query)
        return query

    @property
    def has_arrived(self) -> bool:
        """Whether the whole body has arrived: `body()` does not wait."""
        return isinstance(self._body, (bytes, memoryview))

    def limit_body(self, size: int) -> None:
        """Set the limit of this body, instead of the server's `max_body_size`. Call it before the body is read.

        Args:
            size: Longest body in bytes, else 413.

        Raises:
            HTTPError: 413, the body is longer. A body that is still to come raises it where it is read.
        """
        if isinstance(self._body, (bytes, memoryview)):
            if len(self._body) > size:
                raise HTTPError(413, f"The body has {len(self._body)} bytes; at most {size} are allowed.")
        elif isinstance(self._body, ReceivedBody):
            self._body.limit(size)

    def body_at_once(self) -> bytes | None:
        """What `body()` returns, if the whole body is there as bytes; else None. For cpu handlers, as it takes less."""
        body = self._body
        if type(body) is not bytes or self._body_state == _STREAMED:
            return None
        self._body_state = _KEPT
        return body

    async def body(self) -> bytes:
        """Read the whole body, and keep it for further calls.

        Returns:
            The body.

        Raises:
            HTTPError: 413, the body is longer than `max_body_size` of the route or the server.
            RuntimeError: A part of the body was streamed before.
        """
        if self._body_state == _STREAMED:
            self._check_not_streamed()
        if isinstance(self._body, memoryview):
            self._body = bytes(self._body)
        elif not isinstance(self._body, bytes):
            if isinstance(pieces := self._body, ReceivedBody):
                self._body = await pieces.whole()
            else:
                self._body = b"".join([piece async for piece in pieces])
        self._body_state = _KEPT
        return self._body

    def _check_not_streamed(self) -> None:
        """The error must not depend on whether the body arrived with the head or in pieces."""
        if self._body_state == _STREAMED:
            raise RuntimeError(
                "a part of the request's body was streamed before and is not kept; if several functions read the body, "
                "such as middleware and a handler, the first one must call await request.body(), which keeps it"
            )

    async def stream(self, *, kept: bool = False) -> AsyncIterator[bytes]:
        """Read the body in pieces as they arrive. The server reads from the client only as fast as the handler does.

        A body can be streamed once, unless `body()` keeps it.

        Args:
            kept: Count the pieces against `max_body_memory` until the request ends: for a handler that keeps them.

        Yields:
            The pieces of the body.

        Raises:
            RuntimeError: A part of the body was streamed before.
        """
        self._check_not_streamed()
        if isinstance(self._body, (bytes, memoryview)):
            if self._body:
                if self._body_state != _KEPT:
                    self._body_state = _STREAMED
                yield bytes(self._body)
            return
        if kept and isinstance(self._body, ReceivedBody):
            self._body.keep()
        async for piece in self._body:
            self._body_state = _STREAMED
            yield piece

    def receive_body_from(self, body: ReceivedBody) -> None:
        """The body comes in pieces. For the connection."""
        self._body = body

    def keep_body(self, body: bytes) -> None:
        """Keep the joined pieces of a streamed body: the body can be read again."""
        self._body, self._body_state = body, _KEPT

    def keep_form(self) -> None:
        """Let `form()` keep the body, too, for a handler that reads it after middleware has read the form."""
        if self._body_state == _UNREAD:
            self._body_state = _FORM_KEEPS

    async def form(self) -> FormData:
        """Read a form, urlencoded or multipart (RFC 7578), and keep it for further calls.

        Returns:
            Fields and files of the form.

        Raises:
            HTTPError: 415, the body is no form; 400, it is malformed; 413, it is over a limit.
            RuntimeError: A part of the body was streamed before.
        """
        if self.form_data is None:
            from .forms import read_form

            if self._body_state == _FORM_KEEPS:
                await self.body()
            keep = self._body.keep if isinstance(self._body, ReceivedBody) else None
            self.form_data = await read_form(self.headers.get("content-type", ""), self.stream(), keep)
        return self.form_data

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str:
        """Return the path at which the server serves a handler, with the `root_path` in front. See `Service.url_for`.

        Args:
            handler: A handler with `@io_route`, `@cpu_route` or `@job_route`.
            **parameters: Path parameters by name; all others become the query.

        Returns:
            The path, percent-encoded, with its query.

        Raises:
            RuntimeError: The request is in a worker process, which does not know the other routes.
            ConfigurationError: The server does not serve the handler, or a path parameter is missing.
        """
        if self.served_by is None:
            raise RuntimeError(
                "request.url_for knows no routes here, in a worker or outside a server; call it in an @io_route; "
                "in the test of a function, make the request with Request(..., served_by=Service(...))"
            )
        url: str = self.served_by.url_for(handler, **parameters)
        return self.peer.root_path + url

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name. The first of several with one name counts: it has the longest path (RFC 6265, 5.4)."""
        return parse_cookies(self.headers.get_all("cookie"))

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.raw_path}>"


def parse_cookies(lines: Iterable[str]) -> dict[str, str]:
    """The name-value pairs of Cookie headers. Text that is not a pair is skipped: it must not hide other cookies."""
    found: dict[str, str] = {}
    for pair in ";".join(lines).split(";"):
        name, equals, value = pair.strip(" \t").partition("=")
        if equals and name:
            found.setdefault(name.rstrip(" \t"), value.lstrip(" \t").strip('"'))
    return found


def _address(end: Any) -> Any:
    return tuple(end) if type(end) is list else end
