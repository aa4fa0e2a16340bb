"""Calls to a service that is known by its name and address only: the modules that `--client` prints use this."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import cached_property, lru_cache
from time import monotonic
from typing import Any, NamedTuple, TypedDict, Unpack
from weakref import WeakKeyDictionary

import msgspec

from ..binding.replies import ReplyReader, UnreadableReply
from ..client.address import Address, parse_address, parse_services
from ..client.client_tls import client_context
from ..client.messages import Incoming, Outgoing
from ..client.services import Services
from ..core.call_errors import CallFailed
from ..core.errors import ConfigurationError
from ..core.responses import NDJSON
from ..core.settings import Settings, load_settings
from ..service.routes import IDEMPOTENT_METHODS
from .call_context import LONGEST, call_context, time_for
from .call_failures import check_response
from .open_services import services_here
from .remote_requests import body_of, headers_of, result_of, target_of

JSON_LINES = (NDJSON, "application/jsonl")


class RequestParts(TypedDict, total=False):
    """Parts and options of a request of `Remote`. All of them are optional.

    Values that are None are left out of path, query, headers, cookies and form.

    Attributes:
        path: Values for the template.
        query: Parameters of the query; a list gives several of one name.
        headers: Header fields.
        cookies: Cookies.
        json: Value that is sent as JSON.
        form: Fields that are sent as a form. With `multipart`, `bytes` and `UploadFile` are sent as files.
        body: Bytes that are sent as they are.
        content_type: Content type of `body`; by default application/octet-stream.
        multipart: Whether the form is multipart/form-data.
        bearer: Token for the header Authorization. None: no such header.
        idempotent: Whether the request may be sent again after a failure; by default as HTTP says of the method.
        hedge: Seconds after which an idempotent request goes to a second replica, too.
        timeout: Seconds for all attempts and the response. It can only shorten the budget of the calling handler.

    Example:
        ```python
        from tinysvc.runtime.remote import RequestParts

        parts = RequestParts(path={"id": 7}, query={"kind": ["gift", "own"]}, timeout=1.0)
        ```
    """

    path: Mapping[str, Any]
    query: Mapping[str, Any]
    headers: Mapping[str, Any]
    cookies: Mapping[str, Any]
    json: Any
    form: Mapping[str, Any]
    body: bytes
    content_type: str
    multipart: bool
    bearer: str | None
    idempotent: bool
    hedge: float
    timeout: float


class Remote:
    """A service that this program does not contain, for the functions that `python -m tinysvc --client` prints.

    The setting `services` (`TINYSVC_SERVICES`) names its addresses. Without an entry there, the URL is used. In a
    handler, a call ends with the budget of the request that it belongs to. Connections stay open for further calls, and
    close when the event loop ends.

    Args:
        name: Name of the service, as in the setting `services`.
        url: Address without an entry there, as in "http://127.0.0.1:8000" or "unix:/run/orders.sock".

    Example:
        ```python
        from tinysvc import Remote

        service = Remote("hello", "http://127.0.0.1:8000")

        async def hello(*, name: str) -> dict[str, str]:
            found: dict[str, str] = await service.call("GET", "/{name}", dict[str, str], path={"name": name})
            return found
        ```
    """

    def __init__(self, name: str, url: str = "") -> None:
        self.name = name
        self.url = url
        self._own: WeakKeyDictionary[asyncio.AbstractEventLoop, Own] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Remote({self.name!r}{f', {self.url!r}' if self.url else ''})"

    async def call(self, method: str, template: str, result: Any, /, **parts: Unpack[RequestParts]) -> Any:
        """Send a request, and return the body of the response.

        Args:
            method: HTTP method.
            template: Path, as in "/orders/{id}"; `{name:path}` may have slashes.
            result: Type of the result. None: the body of the response is ignored.
            **parts: The other parts of the request, and its options; see `RequestParts`.

        Returns:
            The decoded body.

        Raises:
            HTTPError: The service refuses the request with a 4xx; status and details are those of its response.
            CallFailed: The service failed, or its response is not of the type `result`.
            CallUnavailable: The service cannot be reached, or is overloaded.
            CallTimeout: The budget is used up.
            ConfigurationError: No address of the service is known.
            ValueError: A value cannot be sent in its place, such as a header with a line break.
            UnencodableResult: A value has no JSON.
        """
        incoming = await self._send(method, template, parts, seconds=time_for(None, self._settings.call_timeout))
        content = await incoming.body(self._settings.max_body_size)
        try:
            return result_of(result, incoming.headers.get("content-type", ""), content)
        except ValueError as error:
            raise self._unreadable(incoming, error) from error

    async def stream(
        self, method: str, template: str, item: Any, /, **parts: Unpack[RequestParts]
    ) -> AsyncGenerator[Any, None]:
        """Send a request, and yield the items of the response as they arrive.

        When the generator is closed, the service sees a disconnect and stops. An event's data is decoded if it is JSON.

        Args:
            method: HTTP method.
            template: Path, as in "/orders/{id}"; `{name:path}` may have slashes.
            item: Type of an item: that of one line for JSON lines, `Event`, `str` or `bytes`.
            **parts: The other parts of the request, and its options; see `RequestParts`.

        Yields:
            The items.

        Raises:
            HTTPError: The service refuses the request with a 4xx; status and details are those of its response.
            CallFailed: The service failed, before or in the middle of the stream, or an item is not of the type `item`.
            CallUnavailable: The service cannot be reached, or is overloaded.
            CallTimeout: The budget is used up.
            ConfigurationError: No address of the service is known.
            ValueError: A value cannot be sent in its place, such as a header with a line break.
            UnencodableResult: A value has no JSON.
        """
        incoming = await self._send(method, template, parts, seconds=LONGEST)
        try:
            async for each in items_of(item, incoming.headers.get("content-type", ""), aiter(incoming)):
                yield each
        except UnreadableReply as error:
            raise self._unreadable(incoming, error) from None
        finally:
            await incoming.aclose()

    async def _send(self, method: str, template: str, parts: RequestParts, *, seconds: float) -> Incoming:
        """Send the request; `seconds` is the time for it if nothing else limits it."""
        context = call_context(parts.get("timeout", seconds))
        services = await self._services()
        kind, body = body_of(
            parts.get("json", msgspec.UNSET), parts.get("form"), parts.get("body"), parts.get("multipart", False)
        )
        fields = headers_of(parts.get("headers", {}), parts.get("cookies", {}), parts.get("bearer"))
        if kind:
            fields.append(("content-type", parts.get("content_type") or kind))
        target = target_of(template, parts.get("path", {}), parts.get("query", {}))
        incoming = await services.send(
            self.name,
            Outgoing(method, target, [*context.headers(), *fields], body),
            deadline=min(context.deadline, monotonic() + parts.get("timeout", LONGEST)),
            idempotent=parts.get("idempotent", method in IDEMPOTENT_METHODS),
            hedge=parts.get("hedge"),
        )
        await check_response(incoming, self.name)
        if incoming.status >= 300:
            incoming.discard()
            raise self._unreadable(incoming, f"{incoming.status} is no result, and redirects are not followed")
        return incoming

    async def _services(self) -> Services:
        """Those of the running service if they know the name, else own ones for the event loop."""
        here = services_here()
        if here is not None and self.name in here.addresses:
            self._check_protocol(here.addresses[self.name][0])
            return here
        loop = asyncio.get_running_loop()
        if (found := self._own.get(loop)) is None:
            found = self._own[loop] = Own(services := self._open(), _until_loop_ends(services))
            await anext(found.closing)
        return found.services

    def _open(self) -> Services:
        settings = self._settings
        addresses = parse_services(settings.services).get(self.name) or ((parse_address(self.url),) if self.url else ())
        if not addresses:
            raise ConfigurationError(
                f"no address of the service {self.name} is known; set TINYSVC_SERVICES='{self.name}=http://host:port'"
            )
        self._check_protocol(addresses[0])
        tls = None
        if any(each.scheme == "https" for each in addresses):
            tls = client_context(settings.services_ca, settings.services_cert, settings.services_key)
        return Services({self.name: addresses}, settings, tls=tls)

    def _check_protocol(self, address: Address) -> None:
        if address.is_rpc:
            raise ConfigurationError(
                f"{self.name} is called over HTTP by this client, so it needs an address such as http://host:port, "
                f"not {address}"
            )

    @cached_property
    def _settings(self) -> Settings:
        return load_settings({}, os.environ)

    def _unreadable(self, incoming: Incoming, error: object) -> CallFailed:
        return CallFailed(
            f"The response cannot be read: {error}",
            service=self.name,
            replica=incoming.replica,
            attempts=incoming.attempts,
            answered=incoming.status,
        )


class Own(NamedTuple):
    """The connections of one event loop."""

    services: Services
    closing: AsyncGenerator[None, None]
    """It closes them. It is kept here, because a generator without a reference closes at once."""


async def _until_loop_ends(services: Services) -> AsyncGenerator[None, None]:
    """An event loop closes its asynchronous generators at its end (PEP 525), and with this one the connections."""
    try:
        yield
    finally:
        await services.aclose()


@lru_cache(maxsize=1000)
def _reader_of(item: Any) -> ReplyReader:
    """Reads the items of a stream as those of a handler that yields them."""

    def items() -> None: ...

    items.__annotations__["return"] = AsyncIterator[item]
    return ReplyReader(items)


def items_of(item: Any, content_type: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """The items of a stream, by its content type. UnreadableReply for one that is not of this type."""
    kind = content_type.partition(";")[0].strip().lower()
    return _reader_of(item).items(NDJSON if kind in JSON_LINES else content_type, pieces)
