"""Binding inverted: the arguments of a call -> the request that a handler is filled from.

`RequestWriter` reads the places of a handler's parameters (`Binder.inputs`), and writes each argument to its place:
path, query, header, cookie, form or body. What it writes, binding reads again as the same value.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ..core.encoding import json_bytes
from ..core.errors import ConfigurationError
from ..core.headers import FIELD_VALUE
from ..core.responses import JSON, NDJSON, OCTETS
from .inputs import Input
from .markers import Bearer
from .outgoing_forms import Field, fields_of, form_body
from .outgoing_texts import filled_path, texts_of

_REQUIRED = inspect.Parameter.empty

OutgoingBody = bytes | Callable[[], AsyncIterator[bytes]]


class OutgoingRequest(NamedTuple):
    """The request of a call. A body that is a callable returns a new iterator for each attempt."""

    method: str
    target: str
    """The path with its query, percent-encoded."""
    headers: list[tuple[str, str]]
    body: OutgoingBody
    can_repeat: bool = True
    """Whether the body can be sent a second time."""


class RequestWriter:
    """Writes the requests for one handler.

    Args:
        function: The handler.
        method: Method of the request.
        path: Path of the route, with its parameters in braces.
        inputs: The places of the handler's parameters.

    Raises:
        ConfigurationError: A parameter cannot be filled by a call.
    """

    def __init__(self, function: Callable[..., Any], method: str, path: str, inputs: Iterable[Input]) -> None:
        inputs = list(inputs)
        self._function = function
        self._method = method
        self._path = path
        self._inputs = [each for each in inputs if each.travels]
        for each in inputs:
            if each.place == "of_request" and not getattr(each.annotation, "for_calls", False):
                raise ConfigurationError.at(
                    function,
                    f"cannot be called: its parameter {each.parameter} is a {each.annotation!r}, which only a "
                    "connection of its own has; call a handler without it",
                )
        has_body = any(each.place in _BODIES for each in self._inputs)
        self.takes_body = not has_body and any(each.place == "request" for each in inputs)
        self.names = tuple(each.parameter for each in self._inputs) + (("body",) if self.takes_body else ())
        self.required = frozenset(each.parameter for each in self._inputs if each.default is _REQUIRED)
        is_document = not self.takes_body and "{" not in path and [each.place for each in self._inputs] == ["json"]
        self._document = self._inputs[0].parameter if is_document else ""  # the only parameter: the usual case

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, as a function call has them. TypeError for a wrong one."""
        return arguments_by_name(self._function, self.names, self.required, args, kwargs)

    def write(self, arguments: Mapping[str, Any]) -> OutgoingRequest:
        """The request for these arguments.

        Raises:
            ValueError: A value cannot travel in its place, such as a header with a line end.
            UnencodableResult: A value has no JSON.
        """
        if self._document and self._document in arguments:
            content = json_bytes(arguments[self._document])
            return OutgoingRequest(self._method, self._path, [("content-type", JSON)], content)
        path: dict[str, str] = {}
        query: list[tuple[str, str]] = []
        headers: list[tuple[str, str]] = []
        cookies: list[str] = []
        form: list[Field] = []
        body: Any = arguments.get("body", b"") if self.takes_body else b""
        content_type = OCTETS if self.takes_body and "body" in arguments else ""
        for taken in self._inputs:
            name, place, field = taken.parameter, taken.place, taken.field
            if name not in arguments:
                continue
            value = arguments[name]
            if place == "json":
                body, content_type = json_bytes(value), JSON
            elif place == "stream":
                body, content_type = _lines_of(value), NDJSON
            elif place == "bytes":
                body, content_type = b"" if value is None else value, OCTETS
            elif place in ("form", "whole form"):
                form += fields_of(taken, value)
                content_type = "form"
            elif value is None or value == []:
                self._check_default(taken, value)
            elif place == "path":
                path[name] = self._segment(name, value)
            elif place == "query":
                query += [(field, text) for text in texts_of(value)]
            elif place == "cookie":
                cookies += [f"{field}={self._cookie(name, text)}" for text in texts_of(value)]
            else:
                prefix = "Bearer " if isinstance(taken.marker, Bearer) else ""
                headers += [(field, self._line(name, prefix + text)) for text in texts_of(value)]
        if cookies:
            headers.append(("cookie", "; ".join(cookies)))
        if content_type == "form":
            content_type, body = form_body(form)
        if content_type:
            headers.append(("content-type", content_type))
        target = filled_path(self._path, path)
        return OutgoingRequest(
            self._method, f"{target}?{urlencode(query)}" if query else target, headers, *outgoing_body(body)
        )

    def _check_default(self, taken: Input, value: Any) -> None:
        """Texts cannot say None, or that there are none of them: that is right if the callee then takes the same."""
        if taken.default != value:
            raise ValueError(
                f"{taken.parameter} of {self._function.__qualname__} cannot be sent as {value!r} in the {taken.place}; "
                f"give the parameter the default {value!r}, and leave it out"
            )

    def _segment(self, name: str, value: Any) -> str:
        (text,) = texts_of(value)
        if text in ("", ".", ".."):
            raise ValueError(f"{name} of {self._function.__qualname__} is a path segment, which cannot be {text!r}")
        return str(text)

    def _line(self, name: str, text: str) -> str:
        if not FIELD_VALUE.fullmatch(text):
            raise ValueError(f"{name} of {self._function.__qualname__} is a header: one line of Latin-1, not {text!r}")
        return text

    def _cookie(self, name: str, text: str) -> str:
        if not _COOKIE.fullmatch(text):
            raise ValueError(f"{name} of {self._function.__qualname__} is a cookie, which cannot hold {text!r}")
        return text


_BODIES = frozenset({"json", "bytes", "stream", "form", "whole form"})

_COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]*")  # RFC 6265, 4.1.1


def arguments_by_name(
    function: Callable[..., Any],
    names: tuple[str, ...],
    required: frozenset[str],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """The arguments of a call by name. TypeError as for a function with these parameters."""
    if args:
        if not kwargs and len(args) == len(names):
            return dict(zip(names, args, strict=True))
        if len(args) > len(names):
            raise TypeError(
                f"{function.__qualname__}() takes {len(names)} arguments but {len(args)} were given; {_known(names)}"
            )
        found = dict(zip(names, args, strict=False))
        if kwargs:
            if twice := found.keys() & kwargs.keys():
                raise TypeError(f"{function.__qualname__}() got multiple values for argument {min(twice)!r}")
            found |= kwargs
    else:
        found = kwargs
    if kwargs and (unknown := [name for name in kwargs if name not in names]):
        raise TypeError(f"{function.__qualname__}() got an unexpected argument {unknown[0]!r}; {_known(names)}")
    if not required <= found.keys():
        missing = ", ".join(name for name in names if name in required and name not in found)
        raise TypeError(f"{function.__qualname__}() is missing arguments: {missing}")
    return found


def _known(names: tuple[str, ...]) -> str:
    return f"a call gives it {', '.join(names)}" if names else "a call gives it none"


def outgoing_body(body: Any) -> tuple[OutgoingBody, bool]:
    """A body, and whether it can be sent a second time. TypeError if it is neither bytes nor an iterator of bytes."""
    if isinstance(body, bytes):
        return body, True
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body), True
    if isinstance(body, AsyncIterator):
        return lambda: body, False
    if isinstance(body, Iterator):
        return lambda: _from_iterator(body), False
    if callable(body):
        return body, True
    raise TypeError(f"the body of a call is bytes or an iterator of bytes, not a {type(body).__qualname__}")


async def _lines_of(items: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[bytes]:
    """The items as NDJSON."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield json_bytes(item) + b"\n"
    else:
        for item in items:
            yield json_bytes(item) + b"\n"


async def _from_iterator(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    from ..core.threads import in_thread  # a worker loads this file, too, and needs no event loop

    while (piece := await in_thread(lambda: next(pieces, None))) is not None:
        yield piece
