"""A service whose responses are compressed (test_compression.py)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinysvc import Batch, Event, Request, Response, cpu_route, io_route
from tinysvc.core.responses import FileContent

TEXT = "all work and no play makes Jack a dull boy. "
BIG = TEXT * 20_000


@dataclass
class Note:
    text: str


async def io_pieces() -> AsyncIterator[str]:
    for piece in ("one ", TEXT, BIG):
        yield piece


def cpu_pieces() -> Iterator[str]:
    yield from ("one ", TEXT, BIG)


async def io_events() -> AsyncIterator[Event]:
    yield Event(BIG)


def cpu_events() -> Iterator[Event]:
    yield Event(BIG)


RESULTS: dict[str, Any] = {
    "small": "x",
    "text": TEXT * 100,
    "big": BIG,
    "json": {"text": [TEXT] * 100},
    "octets": BIG.encode(),
    "partial": Response(TEXT * 100, 206, {"content-range": "bytes 0-1/2"}),
    "encoded": Response(BIG.encode(), headers={"content-encoding": "x"}, content_type="text/plain"),
    "view": Response(memoryview(BIG.encode()), content_type="text/plain"),
}


def result(kind: str, made: dict[str, Any]) -> Any:
    if kind in made:
        return made[kind]()
    return RESULTS[kind]


@io_route("/io/{kind}")
async def io(kind: str) -> Any:
    return result(kind, {"stream": io_pieces, "events": io_events})


@cpu_route("/cpu/{kind}")
def cpu(kind: str) -> Any:
    return result(kind, {"stream": cpu_pieces, "events": cpu_events})


@cpu_route("/batch/{kind}", batch=Batch(4))
def batched(kind: list[str]) -> list[Any]:
    return [result(each, {}) for each in kind]


KEPT = Response(BIG)


@io_route("/kept")
async def kept() -> Response:
    return KEPT


@io_route("/file")
async def file() -> Response:
    file = open(__file__, "rb", buffering=0)  # noqa: SIM115
    return Response(FileContent(file, 0, Path(__file__).stat().st_size), content_type="text/plain")


@io_route("/io/note", methods=["POST"])
async def io_note(note: Note) -> int:
    return len(note.text)


@cpu_route("/cpu/note", methods=["POST"])
def cpu_note(note: Note) -> dict[str, int]:
    return {"length": len(note.text), "pid": os.getpid()}


@cpu_route("/batch/note", methods=["POST"], batch=Batch(4))
def batched_note(note: list[Note]) -> list[int]:
    return [len(each.text) for each in note]


@cpu_route("/small/note", methods=["POST"], max_body_size=100)
def small_note(note: Note) -> int:
    return len(note.text)


@io_route("/io/raw", methods=["POST"])
async def io_raw(body: bytes) -> bytes:
    return body


@cpu_route("/cpu/raw", methods=["POST"])
def cpu_raw(body: bytes) -> bytes:
    return body


@io_route("/io/stream", methods=["POST"])
async def io_stream(request: Request) -> bytes:
    return b"".join([piece async for piece in request.stream()])
