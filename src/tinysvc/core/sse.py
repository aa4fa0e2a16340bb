"""Server-sent events (WHATWG HTML, 9.2): what a browser's EventSource reads, from io and cpu generators.

A stream of events is kept alive by the connection: where nothing else was sent for a while, a comment is (see http.py),
so that proxies do not cut it off and a client that has vanished is noticed. To go on where a client was cut off, take
its last id: `last: Annotated[str, Header("last-event-id")] = ""`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .responses import EVENTS, Response


class EventStream(Response):
    """A stream of events whose head is sent at once: a browser knows that it is connected before the first one.

    `events` is an iterator, or an async one, of Events; anything else in it is an event's data. (Of a generator that is
    returned as it is, the first event is waited for, so that what it raises before still answers with its status.)
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
    """One server-sent event (WHATWG HTML, 9.2): a generator that yields these streams them to a browser's EventSource.

    `data` is sent as it is if it is a str, else as JSON. `event` names its kind; the browser sends the `id` of the last
    one it has seen as `Last-Event-ID` when it connects again, `retry` milliseconds after it was cut off.
    """

    data: Any
    event: str = ""
    id: str = ""
    retry: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("event", self.event), ("id", self.id)):
            if not isinstance(value, str) or _ENDS_FIELD.search(value):
                what = f"the {name} of an Event must be one line of text without NUL, not {value!r}"
                raise ValueError(f"{what}; put what has several lines into data")
        if self.retry is not None and (type(self.retry) is not int or self.retry < 0):
            raise ValueError(f"retry must be a whole number of milliseconds, as in retry=3000, not {self.retry!r}")

    def encode(self, to_json: Callable[[Any], bytes] = orjson.dumps) -> bytes:
        """The event as it stands in the stream, with the empty line that ends it."""
        text = self.data if isinstance(self.data, str) else to_json(self.data).decode()
        fields = [("event", self.event), ("id", self.id), ("retry", "" if self.retry is None else self.retry)]
        lines = [f"{name}: {value}\n" for name, value in fields if value != ""]
        lines += [f"data: {line}\n" for line in _LINE_END.split(text)]
        return ("".join(lines) + "\n").encode()


_LINE_END = re.compile(r"\r\n|\r|\n")
_ENDS_FIELD = re.compile(r"[\r\n\0]")
