"""Streams of events (test_events.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from tinysvc import Event, EventStream, Header, cpu_route, io_route

Last = Annotated[int, Header("last-event-id")]


def after(last: int) -> Iterator[Any]:
    yield Event({"n": last + 1}, id=str(last + 1))
    yield "plain"
    yield Event("bye", event="end")


@io_route("/io")
async def in_loop(last: Last = 0) -> EventStream:
    async def events() -> AsyncIterator[Any]:
        for event in after(last):
            yield event

    return EventStream(events())


@io_route("/thread")
def in_thread(last: Last = 0) -> EventStream:
    return EventStream(after(last))


@cpu_route("/cpu")
def in_worker(last: Last = 0) -> EventStream:
    return EventStream(after(last))
