"""Requests on the wire: each case of tests/wire/cases in five cuts; then any bytes."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from commands import served, tinysvc
from http_ends import GUARD, PLACES, ReceivedResponse, cut, get, on_loop, parse_responses
from paths import SUPPORT
from tinysvc.core.settings import Settings
from tinysvc.server.connections import Connections
from wire_cases import CASES, EDITS, FRAGMENTS, LIMITS, REQUESTS, STREAMS, Case, edited, for_each_case, show, thorough

pytestmark = pytest.mark.usefixtures("quiet")


async def converse(pieces: Iterable[bytes], *, half_close: bool, **options: Any) -> bytes:
    """All that a server sends back for `pieces`. `half_close`: the client then says that this was all."""
    loop = asyncio.get_running_loop()
    connections = Connections(show, Settings(**{**LIMITS, **options}))
    client, server = socket.socketpair()
    client.setblocking(False)
    with client:
        await loop.connect_accepted_socket(connections, server)
        received = bytearray()

        async def receive() -> None:
            while data := await loop.sock_recv(client, 65536):
                received.extend(data)

        receiving = loop.create_task(receive())
        try:
            for piece in pieces:
                if receiving.done():
                    break
                await loop.sock_sendall(client, piece)
                for _ in range(3):  # a turn of the loop to read it, one to wake the connection, one to act
                    await asyncio.sleep(0)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # refused and closed before all was sent
        try:
            await asyncio.wait_for(receiving, GUARD)
        except ConnectionResetError:
            pass
    tasks = [connection.task for connection in connections.open]
    connections.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
    return bytes(received)


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def by_pairs(data: bytes) -> list[bytes]:
    return [data[i : i + 2] for i in range(0, len(data), 2)]


def at_random(data: bytes) -> list[bytes]:
    return cut(data, sorted(random.Random(len(data)).choices(range(len(data) + 1), k=5)))


async def responses_in(received: bytes, case: Case) -> list[ReceivedResponse]:
    """All responses. HEAD can only be the first request; its response has no body."""
    end = received.find(b"\r\n\r\n") + 4 if "head" in case.words else 0
    return [*await parse_responses(received[:end], head=True), *await parse_responses(received[end:])]


@for_each_case
@on_loop
async def test_wire(case: Case) -> None:
    received = await check(case, [case.sent], case.statuses)
    assert b"100 Continue" not in received  # the body is there
    for pieces in (by_pairs(case.sent), at_random(case.sent)):
        await check(case, pieces, case.statuses)
    received = await check(case, bytewise(case.sent), case.statuses)
    assert received.count(b"100 Continue") == ("continue" in case.words)
    if "eof" not in case.words:
        behind = [] if case.closes else [200]
        received = await check(case, [case.sent + get("/behind")], case.statuses + behind)
        assert (b"/behind" in received) == bool(behind)


async def check(case: Case, pieces: list[bytes], statuses: list[int]) -> bytes:
    received = await converse(pieces, half_close=not case.closes)
    answers = await responses_in(received, case)
    assert [answer.status for answer in answers] == statuses
    assert [answer.body for answer in answers if answer.status == 200 and answer.body][: len(case.seen)] == case.seen
    assert b"/smuggled" not in received
    for answer in answers:
        if answer.status >= 400:
            assert answer.closes
            assert answer.fields["content-type"] == "application/problem+json"
    return received


def test_wire_cases_are_many_and_different() -> None:
    assert len(CASES) >= 927
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.sent for case in CASES}) == len(CASES)


# The same, served without assertions

SERVICE = """
from wire_cases import show
from tinysvc import Request, Response, io_route

ALL = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

@io_route("/", methods=ALL)
async def root(request: Request) -> Response:
    return await show(request)

@io_route("/{rest:path}", methods=ALL)
async def anything(request: Request, rest: str) -> Response:
    return await show(request)
"""


@pytest.mark.parametrize("optimized", ["-O", "-OO"])
def test_served_without_assertions(tmp_path: Path, optimized: str, nothing_left: None) -> None:
    """No check of ours is an assert (CVE-2025-69227)."""
    (tmp_path / "shows.py").write_text(SERVICE)
    flags = [word for name, limit in LIMITS.items() for word in (f"--{name.replace('_', '-')}", str(limit))]
    command = (optimized, *tinysvc("shows.py", *flags))
    with served(*command, cwd=tmp_path, PYTHONPATH=str(SUPPORT)) as server:
        port = int(server.url.rpartition(":")[2])
        found = uvloop.run(told_by(port))
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
    assert (server.process.returncode, errors) == (0, "")
    assert found == {case.name: plainly(case.statuses) for case in CASES}


async def told_by(port: int) -> dict[str, list[int]]:
    """The statuses of all cases."""
    few = asyncio.Semaphore(32)

    async def ask(case: Case) -> list[int]:
        async with few:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(case.sent)
                if not case.closes:
                    writer.write_eof()
                received = await asyncio.wait_for(reader.read(), GUARD)
            finally:
                writer.close()
        assert b"/smuggled" not in received
        return plainly(answer.status for answer in await responses_in(received, case))

    return dict(zip([case.name for case in CASES], await asyncio.gather(*map(ask, CASES)), strict=True))


def plainly(statuses: Iterable[int]) -> list[int]:
    """With 200 for every success: a service itself responds to OPTIONS."""
    return [200 if status < 400 else status for status in statuses]


# Any bytes, any cuts


def spoken(pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """The status of each response to `pieces` and an end of file, and the requests that the application saw."""

    async def run() -> list[tuple[int, bytes]]:
        answers = await parse_responses(await converse(pieces, half_close=True))
        return [(answer.status, answer.body if answer.status == 200 else b"") for answer in answers]

    return uvloop.run(run())


@thorough
@given(stream=STREAMS, places=PLACES)
def test_segmentation_of_a_good_stream_does_not_matter(stream: bytes, places: list[int]) -> None:
    answers = spoken([stream])
    assert spoken(cut(stream, places)) == answers
    assert {status for status, _ in answers} == {200}


@thorough
@given(stream=STREAMS, edits=EDITS, places=PLACES)
def test_segmentation_of_a_damaged_stream_does_not_matter(
    stream: bytes, edits: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    stream = edited(stream, edits)
    answers = spoken([stream])
    assert spoken(cut(stream, places)) == answers
    assert spoken(bytewise(stream)) == answers
    assert all(status in (200, 400, 413, 414, 417, 431, 501, 505) for status, _ in answers)


@thorough
@given(pieces=st.lists(st.binary(max_size=60) | st.sampled_from(FRAGMENTS + REQUESTS), max_size=10))
def test_any_bytes_get_a_well_formed_response_or_none(pieces: list[bytes]) -> None:
    assert all(status in (200, 400, 413, 414, 417, 431, 501, 505) for status, _ in spoken(pieces))
