"""Server-sent events (WHATWG HTML, 9.2), for a browser's EventSource, from io and cpu generators.

The connection keeps a stream of events alive: after a pause it sends a comment (see http.py). Proxies then do not close
the connection, and the server notices a lost client. A browser that reconnects sends its last id; continue from there:
`last: Annotated[str, Header("last-event-id")] = ""`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .responses import EVENTS, Response


class EventStream(Response):
    """A response that streams server-sent events (WHATWG HTML, 9.2), and sends its head at once.

    A browser knows that it is connected before the first event. A generator that a handler returns directly is
    different: the server waits for its first event, because an error before it still sets the status.

    Args:
        events: Iterator or async iterator of `Event`s; another value is the data of an event.
        headers: Further header lines, as a mapping or as pairs.

    Raises:
        TypeError: `events` is no iterator.
        ValueError: A header cannot stand in its line.

    Example:
        ```python
        from collections.abc import AsyncIterator

        from tinysvc import Event, EventStream, io_route

        async def ticks() -> AsyncIterator[Event]:
            for number in range(3):
                yield Event({"number": number}, id=str(number))

        @io_route("/ticks")
        async def stream() -> EventStream:
            return EventStream(ticks())
        ```
    """

    __slots__ = ()

    def __init__(
        self,
        events: Iterator[Any] | AsyncIterator[Any],
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        if not isinstance(events, (Iterator, AsyncIterator)):
            raise TypeError(f"EventStream takes what a generator returns, as in EventStream(ticks()), not {events!r}")
        super().__init__(events, headers=headers, content_type=EVENTS)


@dataclass(frozen=True)
class Event:
    r"""One server-sent event (WHATWG HTML, 9.2). A generator that yields events streams them to an EventSource.

    Args:
        data: A str is sent as it is, any other value as JSON.
        event: Type of the event; empty for the default type "message".
        id: Id of the event. A browser that reconnects sends the last id as `Last-Event-ID`.
        retry: Milliseconds until a disconnected browser connects again. None: the browser decides.

    Raises:
        ValueError: `event` or `id` is not one line of text, or `retry` is no whole number.

    Example:
        ```python
        from tinysvc import Event

        assert Event({"n": 1}, event="tick").encode() == b'event: tick\ndata: {"n":1}\n\n'
        ```
    """

    data: Any
    event: str = ""
    id: str = ""
    retry: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("event", self.event), ("id", self.id)):
            if not isinstance(value, str) or _ENDS_FIELD.search(value):
                fault = f"the {name} of an Event must be one line of text without NUL, not {value!r}"
                raise ValueError(f"{fault}; put a text of several lines into data")
        if self.retry is not None and (type(self.retry) is not int or self.retry < 0):
            raise ValueError(f"retry must be a whole number of milliseconds, as in retry=3000, not {self.retry!r}")

    def encode(self, to_json: Callable[[Any], bytes] = orjson.dumps) -> bytes:
        """Return the event as bytes of the stream, with the empty line at its end.

        Args:
            to_json: Encoder for data that is no str.

        Returns:
            The event in UTF-8.
        """
        text = self.data if isinstance(self.data, str) else to_json(self.data).decode()
        fields = [("event", self.event), ("id", self.id), ("retry", "" if self.retry is None else self.retry)]
        lines = [f"{name}: {value}\n" for name, value in fields if value != ""]
        lines += [f"data: {line}\n" for line in _LINE_END.split(text)]
        return ("".join(lines) + "\n").encode()


_LINE_END = re.compile(r"\r\n|\r|\n")
_ENDS_FIELD = re.compile(r"[\r\n\0]")
