"""The soak test: does the server keep its memory, tasks and descriptors under all kinds of traffic at once?

One server process with two workers serves tests/support/soak_app.py. This process runs all its clients: honest, slow
and rude ones, and one that kills a worker every other second. Each *kind* of traffic is a function; its decorator is
its row in the table of allowed outcomes: statuses, a closed connection, a response that is cut off.
At the end stands a verdict, as text and as exit status:

- Every outcome of a request is allowed for its kind, and every body is correct; other outcomes are shown with bytes.
- The server's log has only lines that LOG_LINES names, and no traceback.
- Killed workers lose at most one response each.
- Memory at rest is flat: in each pause (after the warm-up, WARM, and after each third of the time), without clients and
  with free memory given back, it is at most SLACK above the first pause. Memory under load is shown, and not judged: it
  depends on how many bodies are half-way, and so on how busy the machine is.
- Without clients, there are as many descriptors, tasks and running generators as in the first pause.
- A chain of three further services stops every job that nobody waits for: see soak_calls.py.
- On SIGTERM, running requests get their responses, endless streams end soon and in order, the exit status is 0, and no
  process and no shared memory is left.

    python benchmarks/soak.py --seconds 600             --seed, which is printed, decides all random choices

It needs the test extra (`make test` installs it).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parents[1] / "tests" / "support"
sys.path.insert(0, str(TESTS))

import uvloop  # noqa: E402
from websockets.asyncio.client import ClientConnection, connect  # noqa: E402
from websockets.exceptions import WebSocketException  # noqa: E402

import soak_calls  # noqa: E402
from http_ends import ReceivedResponse, chunked, get, post, read_response, reset_on_close  # noqa: E402
from soak_app import ANY_SIZE, BLOCK, block, checksum  # noqa: E402
from system import descendants, workers_below  # noqa: E402
from wire_cases import CASES, FRAGMENTS  # noqa: E402

MiB = 2**20

OPTIONS = {
    "--cpu-workers": "2",
    "--first-byte-timeout": "2",
    "--header-timeout": "2",
    "--body-timeout": "2",
    "--write-timeout": "2",
    "--keep-alive-timeout": "3",
    "--shutdown-timeout": "20",
}
"""Short timeouts: many clients reach them within a minute."""

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
"""Return big blocks to the system at once. By default glibc keeps about 30 MiB, which hides leaks."""

ACTORS = {"ordinary": 24, "slow": 24, "rude": 32}
"""Clients of each group: the ordinary ones keep two cores busy, the others mostly wait."""

KILL_EVERY = 2.0
"""Mean seconds between two killed workers."""

GUARD = 45.0
"""Seconds after which an operation counts as hanging, on a busy machine, too."""

WARM = 60.0
"""Seconds of warm-up; a third of a short run."""

SLACK = {"server": 6 * MiB, "family": 32 * MiB}
"""Bytes by which memory at rest may differ by chance: fragments of the heap and filled caches in the server; arenas and
young workers in its family."""

PAUSES = 3
"""Pauses after the warm-up, in which memory at rest is measured; one in a run of less than a minute."""

MOST_SHOWN = 2
"""Examples that are shown of each unexpected outcome."""


# One client


class Recorder(asyncio.StreamReader):
    """A reader that keeps the beginning and the end of its bytes for the report."""

    def __init__(self) -> None:
        super().__init__(limit=4 * MiB)
        self.head = self.tail = b""

    def feed_data(self, data: Any) -> None:
        self.head += data[: 400 - len(self.head)]
        self.tail = (self.tail + data[-200:])[-200:]
        super().feed_data(data)

    def set_exception(self, exc: Exception) -> None:
        """Treat a reset as an end: the bytes before it count."""
        self.feed_eof()


class Client:
    """A client with one connection at a time, which is kept while both ends allow it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writer: asyncio.StreamWriter | None = None
        self.reader: Any = None
        self.sent = b""

    def bytes_seen(self) -> str:
        """For the report: the beginning of the sent bytes, the beginning and the end of the received ones."""
        came = f"{self.reader.head!r} ... {self.reader.tail!r}" if self.reader else "nothing"
        return f"          sent {self.sent!r}\n          came {came}"

    async def open(self, *, receive_buffer: int = 0) -> None:
        """Open a new connection in place of the old one."""
        self.close()
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, ("127.0.0.1", self.port))
        except BaseException:
            sock.close()
            raise
        self.reader = Recorder()
        protocol = asyncio.StreamReaderProtocol(self.reader)
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock)
        self.writer = asyncio.StreamWriter(transport, protocol, self.reader, loop)

    def close(self, *, reset: bool = False) -> None:
        if self.writer is not None:
            if reset:
                with contextlib.suppress(OSError):
                    reset_on_close(self.writer.get_extra_info("socket"))
            self.writer.transport.abort() if reset else self.writer.close()
            self.writer = None

    async def send(self, data: bytes) -> None:
        if self.writer is None:
            await self.open()
        assert self.writer is not None
        self.sent = (self.sent + data)[:500]
        try:
            self.writer.write(data)
        except RuntimeError as error:  # of uvloop, if the connection was lost before this task ran again
            raise ConnectionResetError(str(error)) from None
        await self.writer.drain()

    async def _read(self, *, head: bool = False) -> ReceivedResponse | None:
        try:
            return await read_response(self.reader, head=head)
        except ValueError:  # the connection ended before the size of a chunk
            if self.reader.at_eof():
                raise ConnectionResetError("cut off between two chunks") from None
            raise

    async def answer(self, *, head: bool = False) -> ReceivedResponse:
        answer = await self._read(head=head)
        if answer is None:
            raise ConnectionResetError("closed")
        if answer.closes:
            self.close()
        return answer

    async def ask(self, data: bytes, *, head: bool = False) -> ReceivedResponse:
        self.sent = b""
        await self.send(data)
        return await self.answer(head=head)

    async def end(self) -> str:
        """Wait for the end of the connection: "closed", or the status of a response before it."""
        answer = await self._read()
        return "closed" if answer is None else said(answer)


def said(answer: ReceivedResponse) -> str:
    """The status, and the type of a problem document."""
    kind = ""
    if answer.fields.get("content-type") == "application/problem+json":
        kind = json.loads(answer.body)["type"].removeprefix("about:blank").removeprefix("urn:tinysvc:")
    return f"{answer.status} {kind}".rstrip()


class Wrong(Exception):
    """A well-formed response with wrong content."""


def right(answer: ReceivedResponse, body: bytes) -> str:
    if answer.status == 200 and answer.body != body:
        raise Wrong(f"{len(body)} bytes {body[:80]!r} were expected, {len(answer.body)} came: {answer.body[:80]!r}")
    return said(answer)


def right_stream(answer: ReceivedResponse, blocks: int) -> str:
    if answer.status == 200 and zlib.crc32(answer.body) != checksum(blocks):
        raise Wrong(f"{blocks} blocks were expected, {len(answer.body)} bytes with another checksum came")
    return said(answer)


# The table of kinds

Script = Callable[[Client, random.Random], Awaitable[str]]


class Kind(NamedTuple):
    script: Script
    weight: int
    allowed: frozenset[str]


KINDS: dict[str, dict[str, Kind]] = {group: {} for group in ACTORS}

KILLED = "500 worker-died"
CUT = "cut off"
REFUSED = tuple(str(status) for status in (400, 413, 414, 417, 431, 501, 505))
SERVED = ("200", "204", "404", "405", "415", "422")


def kind(group: str, weight: int, *allowed: str) -> Callable[[Script], Script]:
    """A kind of traffic: its weight in its group, and its allowed outcomes."""

    def record(script: Script) -> Script:
        KINDS[group][getattr(script, "__name__", "?")] = Kind(script, weight, frozenset(allowed))
        return script

    return record


def some(rng: random.Random) -> str:
    """A query that makes the request unique: three equal jobs in killed workers would count as a crash loop."""
    return f"?n={rng.getrandbits(48)}"


def order(rng: random.Random) -> tuple[bytes, bytes]:
    lines = [rng.randrange(1000) / 4 for _ in range(rng.randrange(20))]
    number = rng.randrange(10**6)
    return (
        json.dumps({"number": number, "lines": lines}).encode(),
        b'{"number":%d,"sum":%s}' % (number, json.dumps(sum(lines)).encode()),
    )


JSON = "Content-Type: application/json"


@kind("ordinary", 20, "200")
async def io_get(client: Client, rng: random.Random) -> str:
    return right(await client.ask(get(f"/io/wait/0{some(rng)}")), b'{"waited":0}')


@kind("ordinary", 5, "200")
async def io_waits(client: Client, rng: random.Random) -> str:
    milliseconds = rng.randrange(50)
    path = f"/{rng.choice(['io', 'thread'])}/wait/{milliseconds}"
    return right(await client.ask(get(path)), b'{"waited":%d}' % milliseconds)


@kind("ordinary", 10, "200")
async def io_order(client: Client, rng: random.Random) -> str:
    body, expected = order(rng)
    return right(await client.ask(post(body, "/io/order", JSON)), expected)


@kind("ordinary", 5, "422", "404", "405", "400")
async def io_mistaken(client: Client, rng: random.Random) -> str:
    requests = [
        post(b'{"number": "x"}', "/io/order", JSON),
        post(b"{", "/io/order", JSON),
        get("/io/wait/soon"),
        get("/nowhere"),
        get("/io/order"),
    ]
    return said(await client.ask(rng.choice(requests)))


@kind("ordinary", 3, "200")
async def io_head(client: Client, rng: random.Random) -> str:
    return said(await client.ask(get(f"/io/wait/0{some(rng)}", method="HEAD"), head=True))


@kind("ordinary", 3, "200")
async def io_last(client: Client, rng: random.Random) -> str:
    old = b"GET /io/wait/1 HTTP/1.0\r\n\r\n"
    answer = await client.ask(rng.choice([old, get("/io/wait/1", "Connection: close")]))
    if not answer.closes:
        raise Wrong("the connection was to be closed")
    return right(answer, b'{"waited":1}')


@kind("ordinary", 5, "200")
async def io_pipelined(client: Client, rng: random.Random) -> str:
    """Many requests in one piece; the responses come in order."""
    orders = [order(rng) for _ in range(rng.randrange(2, 30))]
    client.sent = b""
    await client.send(b"".join(post(body, "/io/order", JSON) for body, _ in orders))
    for _, expected in orders:
        outcome = right(await client.answer(), expected)
        if outcome != "200":
            return outcome
    return "200"


@kind("ordinary", 4, "200")
async def io_downloads(client: Client, rng: random.Random) -> str:
    blocks = rng.choice([1, 3, 30])
    path = rng.choice(["/io/download", "/io/declared", "/thread/download"])
    return right_stream(await client.ask(get(f"{path}/{blocks}")), blocks)


@kind("ordinary", 2, "200")
async def io_uploads(client: Client, rng: random.Random) -> str:
    blocks = rng.choice([1, 8, 64, 256])
    client.sent = b""
    if rng.random() < 0.5:
        await client.send(get("/io/upload", "Transfer-Encoding: chunked", method="POST"))
        for number in range(blocks):
            await client.send(b"%x\r\n%b\r\n" % (BLOCK, block(number)))
        await client.send(chunked())
    else:
        await client.send(get("/io/upload", f"Content-Length: {blocks * BLOCK}", method="POST"))
        for number in range(blocks):
            await client.send(block(number))
    return right(await client.answer(), b'{"size":%d,"crc":%d}' % (blocks * BLOCK, checksum(blocks)))


@kind("ordinary", 2, "200")
async def io_expects(client: Client, rng: random.Random) -> str:
    body, expected = order(rng)
    fields = [JSON, f"Content-Length: {len(body)}", "Expect: 100-continue"]
    answer = await client.ask(get("/io/order", *fields, method="POST"))
    if answer.status != 100:
        return f"{said(answer)} instead of 100"
    await client.send(body)
    return right(await client.answer(), expected)


@kind("ordinary", 10, "200", KILLED)
async def cpu_order(client: Client, rng: random.Random) -> str:
    body, expected = order(rng)
    return right(await client.ask(post(body, f"/cpu/order{some(rng)}", JSON)), expected)


@kind("ordinary", 4, "200", KILLED)
async def cpu_burns(client: Client, rng: random.Random) -> str:
    milliseconds = rng.randrange(1, 20)
    return right(await client.ask(get(f"/cpu/burn/{milliseconds}{some(rng)}")), b'{"burnt":%d}' % milliseconds)


@kind("ordinary", 2, "200", KILLED)
async def cpu_uploads(client: Client, rng: random.Random) -> str:
    blocks = rng.choice([1, 3, 4, 5, 64, 256])
    body = b"".join(map(block, range(blocks)))
    if rng.random() < 0.2:
        return right(await client.ask(post(body, f"/cpu/echo{some(rng)}")), body)
    expected = b'{"size":%d,"crc":%d}' % (len(body), checksum(blocks))
    return right(await client.ask(post(body, f"/cpu/upload{some(rng)}")), expected)


@kind("ordinary", 2, "200", KILLED, CUT)
async def cpu_downloads(client: Client, rng: random.Random) -> str:
    blocks = rng.choice([1, 3, 30])
    return right_stream(await client.ask(get(f"/cpu/download/{blocks}{some(rng)}")), blocks)


@kind("ordinary", 6, "200", KILLED)
async def cpu_batched(client: Client, rng: random.Random) -> str:
    values = [rng.randrange(100) / 4 for _ in range(5)]
    answer = await client.ask(post(json.dumps(values).encode(), f"/cpu/batch{some(rng)}", JSON))
    return right(answer, json.dumps(sum(values)).encode())


@kind("ordinary", 1, "418", KILLED)
async def cpu_teapot(client: Client, rng: random.Random) -> str:
    return said(await client.ask(get(f"/cpu/teapot{some(rng)}")))


@kind("ordinary", 1, "200", "504 deadline-exceeded", "503 deadline-in-queue", KILLED)
async def cpu_late(client: Client, rng: random.Random) -> str:
    """About half of the jobs miss their deadline of 200 ms."""
    milliseconds = rng.choice([10, 400])
    return right(await client.ask(get(f"/cpu/late/{milliseconds}{some(rng)}")), b'{"slept":%d}' % milliseconds)


@kind("slow", 2, "200", "503 queue-full", KILLED)
async def cpu_narrow(client: Client, rng: random.Random) -> str:
    """More jobs than one worker and a queue of two can take."""
    milliseconds = rng.randrange(100, 300)
    return right(await client.ask(get(f"/cpu/narrow/{milliseconds}{some(rng)}")), b'{"slept":%d}' % milliseconds)


# Forms, files, events, lines and sockets


def multipart(rng: random.Random, fields: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Make the content type and the body of a form; a field with a filename behind its name is a file."""
    boundary = f"{rng.getrandbits(64):x}"
    parts = [
        b"--%b\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n" % (boundary.encode(), name.encode(), value)
        for name, value in fields
    ]
    return f"Content-Type: multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


@kind("ordinary", 2, "200", KILLED)
async def form_uploads(client: Client, rng: random.Random) -> str:
    """Sizes of uploads: one block, more than stays in memory, and more than a frame to a worker holds."""
    blocks = rng.choice([1, 8, 64])
    content, note = b"".join(map(block, range(blocks))), f"{rng.random()}"
    kind, body = multipart(rng, [('"note"', note.encode()), ('"file"; filename="a.bin"', content)])
    expected = b'{"size":%d,"crc":%d,"note":"%b"}' % (len(content), checksum(blocks), note.encode())
    path = f"/{rng.choice(['io', 'cpu'])}/form{some(rng)}"
    return right(await client.ask(post(body, path, kind)), expected)


@kind("ordinary", 3, "200", KILLED)
async def form_fields(client: Client, rng: random.Random) -> str:
    body, expected = order(rng)
    values = json.loads(body)
    pairs = [("number", str(values["number"])), *(("lines", str(line)) for line in values["lines"] or [0.0])]
    expected = expected if values["lines"] else expected.replace(b'"sum":0}', b'"sum":0.0}')
    if rng.random() < 0.5:
        kind = "Content-Type: application/x-www-form-urlencoded"
        body = "&".join(f"{name}={value}" for name, value in pairs).encode()
    else:
        kind, body = multipart(rng, [(f'"{name}"', value.encode()) for name, value in pairs])
    path = f"/{rng.choice(['io', 'cpu'])}/fields{some(rng)}"
    return right(await client.ask(post(body, path, kind)), expected)


FILE_BLOCKS = 20
FILE = b"".join(map(block, range(FILE_BLOCKS)))
"""The content of the file that clients request, whole and in ranges."""


@kind("ordinary", 4, "200", "206", "304", "404", "416")
async def files(client: Client, rng: random.Random) -> str:
    """Request the whole file, a range, its last bytes, a range behind its end, or a file that has not changed."""
    size, path = len(FILE), "/files/file.bin"
    begin = rng.randrange(size)
    end = min(size, begin + rng.choice([1, 1000, size]))
    match rng.randrange(6):
        case 0:
            return right(await client.ask(get(path)), FILE)
        case 1:
            answer, expected = await client.ask(get(path, f"Range: bytes={begin}-{end - 1}")), FILE[begin:end]
        case 2:
            answer, expected = await client.ask(get(path, f"Range: bytes=-{size - begin}")), FILE[begin:]
        case 3:
            tag = (await client.ask(get(path, method="HEAD"), head=True)).fields["etag"]
            return said(await client.ask(get(path, f"If-None-Match: {tag}")))
        case 4:
            return said(await client.ask(get(f"/files/{begin}.bin")))
        case _:
            return said(await client.ask(get(path, f"Range: bytes={size}-")))
    if answer.status != 206 or answer.body != expected:
        raise Wrong(
            f"{len(expected)} bytes from {begin} on were expected, {answer.status} came with {len(answer.body)}"
        )
    return said(answer)


def event(number: int) -> bytes:
    return b'id: %d\ndata: {"n":%d}\n\n' % (number, number)


def line(number: int) -> bytes:
    return b'{"n":%d}\n' % number


UNITS = {
    **{f"/{side}/events": event for side in ("io", "thread", "cpu")},
    **{f"/{side}/lines": line for side in ("io", "thread", "cpu")},
}
"""The pieces of a stream, by its path."""


@kind("ordinary", 3, "200", KILLED, CUT)
async def events_and_lines(client: Client, rng: random.Random) -> str:
    path, count = rng.choice([*UNITS]), rng.choice([1, 10, 200])
    expected = b"".join(map(UNITS[path], range(count)))
    return right(await client.ask(get(f"{path}/{count}{some(rng)}")), expected)


async def connected(client: Client) -> ClientConnection:
    return await connect(f"ws://127.0.0.1:{client.port}/io/socket", proxy=None, ping_interval=None)


@kind("ordinary", 2, "closed with 1000")
async def sockets(client: Client, rng: random.Random) -> str:
    """Send messages in bunches; each comes back, in order."""
    talk = await connected(client)
    try:
        for _ in range(rng.randrange(1, 5)):
            messages: list[str | bytes] = []
            for _ in range(rng.randrange(1, 12)):
                text = rng.choice(["", "ü" * rng.randrange(1000), json.dumps(rng.random())])
                messages.append(block(rng.randrange(9)) if rng.random() < 0.25 else text)
            for message in messages:
                await talk.send(message)
            for message in messages:
                if (came := await talk.recv()) != message:
                    raise Wrong(f"{message[:80]!r} was sent, {came[:80]!r} came back")
    finally:
        await talk.close()
    return f"closed with {talk.close_code}"


# Slow clients


async def dribble(client: Client, rng: random.Random, data: bytes, pieces: int, pause: float) -> None:
    places = sorted(rng.randrange(len(data) + 1) for _ in range(pieces - 1))
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        await client.send(data[begin:end])
        await asyncio.sleep(rng.random() * pause)


@kind("slow", 3, "200", KILLED)
async def slow_request(client: Client, rng: random.Random) -> str:
    """Send header block and body in pieces, within every timeout."""
    body, expected = order(rng)
    client.sent = b""
    await dribble(client, rng, post(body, f"/{rng.choice(['io', 'cpu'])}/order{some(rng)}", JSON), 8, 0.2)
    return right(await client.answer(), expected)


@kind("slow", 2, "200", KILLED)
async def slow_upload(client: Client, rng: random.Random) -> str:
    blocks = rng.choice([4, 16])
    path = rng.choice(["/io/upload", "/cpu/upload"])
    client.sent = b""
    await client.send(get(path + some(rng), f"Content-Length: {blocks * BLOCK}", method="POST"))
    for number in range(blocks):
        await client.send(block(number))
        await asyncio.sleep(rng.random() * 0.2)
    return right(await client.answer(), b'{"size":%d,"crc":%d}' % (blocks * BLOCK, checksum(blocks)))


DOWNLOADS = ["/io/download", "/io/declared", "/thread/download", "/cpu/download"]


@kind("slow", 3, "200", KILLED, CUT)
async def slow_reader(client: Client, rng: random.Random) -> str:
    """Read a little now and then, with a small receive buffer."""
    await client.open(receive_buffer=64 * 1024)
    await client.send(get(f"{rng.choice(DOWNLOADS)}/40{some(rng)}"))
    assert client.writer is not None
    transport: Any = client.writer.transport
    reading = asyncio.ensure_future(client.answer())
    try:
        while not reading.done():
            transport.pause_reading()
            await asyncio.sleep(rng.random() * 0.05)
            if not reading.done():
                transport.resume_reading()
            await asyncio.sleep(0.002)
        return right_stream(await reading, 40)
    finally:
        reading.cancel()


@kind("slow", 1, CUT, KILLED)
async def stalled_reader(client: Client, rng: random.Random) -> str:
    """Stop reading until the server cuts off the response."""
    await client.open(receive_buffer=64 * 1024)
    assert client.writer is not None
    transport: Any = client.writer.transport
    await client.send(get(f"{rng.choice(DOWNLOADS)}/2000{some(rng)}"))  # too big for the buffers of both ends
    while not (client.reader.head or client.reader.at_eof()):  # may wait for a worker
        await asyncio.sleep(0.01)
    transport.pause_reading()
    await asyncio.sleep(20)  # write_timeout starts when the socket buffer is full
    transport.resume_reading()
    return said(await client.answer())


@kind("slow", 1, "closed")
async def silent(client: Client, rng: random.Random) -> str:
    await client.open()
    return await client.end()


@kind("slow", 1, "closed")
async def idle(client: Client, rng: random.Random) -> str:
    await client.ask(get("/io/wait/0"))
    return await client.end()


@kind("slow", 2, "408")
async def stalled_request(client: Client, rng: random.Random) -> str:
    """Send a part of a request, and nothing more."""
    body, _ = order(rng)
    request = post(body, f"/{rng.choice(['io', 'cpu'])}/order", JSON)
    await client.open()
    await client.send(request[: rng.randrange(1, len(request))])
    return await client.end()


# Rude clients


def any_request(rng: random.Random, most_blocks: int = 1000) -> bytes:
    blocks = rng.choice([1, 5, 40])
    body = b"".join(map(block, range(blocks)))
    return rng.choice(
        [
            *(get(f"{path}/{rng.choice([1, 40, most_blocks])}{some(rng)}") for path in DOWNLOADS),
            *(post(body, f"{path}{some(rng)}") for path in ("/io/upload", "/cpu/upload", "/cpu/echo", "/io/unread")),
            *(post(order(rng)[0], f"{path}{some(rng)}", JSON) for path in ("/io/order", "/cpu/order")),
            *(get(f"{path}/200{some(rng)}&pause=0.001") for path in UNITS),
            get("/files/file.bin"),
            get(f"/io/wait/300{some(rng)}"),
            get(f"/thread/wait/100{some(rng)}"),
            get(f"/cpu/burn/50{some(rng)}"),
            get(f"/cpu/late/400{some(rng)}"),
            post(b"[1.5]", f"/cpu/batch{some(rng)}", JSON),
            get("/io/wait/1") * 50,
        ]
    )


@kind("rude", 4, "left", CUT)
async def leave_in_request(client: Client, rng: random.Random) -> str:
    request = any_request(rng)
    await client.open()
    await client.send(request[: rng.randrange(len(request) + 1)])
    client.close(reset=rng.random() < 0.5)
    return "left"


@kind("rude", 4, "left", CUT)
async def leave_in_answer(client: Client, rng: random.Random) -> str:
    await client.open()
    await client.send(any_request(rng))
    await asyncio.sleep(rng.random() * rng.choice([0.001, 0.1]))
    await client.reader.read(rng.choice([1, 1000, 200_000]))
    client.close(reset=rng.random() < 0.5)
    return "left"


@kind("rude", 3, "left", KILLED, CUT)
async def leave_in_stream(client: Client, rng: random.Random) -> str:
    """Disconnect after the first items of an endless stream."""
    path = rng.choice([*UNITS])
    wanted = b"".join(map(UNITS[path], range(rng.choice([1, 3]))))
    await client.open()
    await client.send(get(f"{path}/{ANY_SIZE}{some(rng)}&pause={rng.choice([0.001, 0.05])}"))
    if not (head := await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200"):
        return "left" if head.startswith(b"HTTP/1.1 500") else repr(head)
    came = b""
    while len(came) < len(wanted):
        if not (size := int(await client.reader.readuntil(b"\r\n"), 16)):
            raise Wrong(f"{path} is without end, and ended behind {came!r}")
        came += (await client.reader.readexactly(size + 2))[:-2]
    if not came.startswith(wanted):
        raise Wrong(f"{wanted!r} was expected, {came!r} came")
    client.close(reset=rng.random() < 0.5)
    return "left"


@kind("rude", 1, "left")
async def leave_socket(client: Client, rng: random.Random) -> str:
    """Send messages, read some of the echoes, and disconnect without a close frame."""
    talk = await connected(client)
    messages = [block(number) for number in range(rng.randrange(6))]
    for message in messages:
        await talk.send(message)
    for message in messages[: rng.randrange(6)]:
        if await talk.recv() != message:
            raise Wrong("another message came back")
    if rng.random() < 0.5:
        reset_on_close(talk.transport.get_extra_info("socket"))
    talk.transport.abort()
    await talk.wait_closed()
    return "left"


@kind("rude", 2, "left", CUT, "closed", *SERVED, KILLED, "503 deadline-in-queue", "504 deadline-exceeded", "400", "413")
async def half_closed(client: Client, rng: random.Random) -> str:
    """Send an end of file in or behind a request, and read the response."""
    request = any_request(rng, most_blocks=40)
    await client.open()
    await client.send(request[: rng.choice([len(request), rng.randrange(len(request) + 1)])])
    assert client.writer is not None
    client.writer.write_eof()
    return await client.end()


@kind("rude", 2, "413", CUT)
async def too_big(client: Client, rng: random.Random) -> str:
    """CUT: the client was still sending when the server had responded and lingered."""
    path = rng.choice(["/io/order", "/cpu/upload"])
    await client.open()
    if rng.random() < 0.5:
        await client.send(get(path, f"Content-Length: {16 * MiB + 1}", method="POST") + b"x")
    else:
        await client.send(get(path, "Transfer-Encoding: chunked", method="POST"))
        with contextlib.suppress(ConnectionError):
            for _ in range(257):
                await client.send(b"%x\r\n%b\r\n" % (BLOCK, bytes(BLOCK)))
    return await client.end()


OF_LIMITS = {413, 414, 431}
"""Refusals of excessive input. The limits are higher here than in the tests."""

WIRE_CASES = [
    case
    for case in CASES
    if not (case.name.startswith("limits-") or OF_LIMITS & {*case.statuses} or "head" in case.words)
]


@kind("rude", 12, "as it should")
async def malformed(client: Client, rng: random.Random) -> str:
    """A case of tests/wire/cases in random pieces: it gets the status of its refusal, or a response."""
    case = rng.choice(WIRE_CASES)
    outcomes = await sent_and_heard(client, rng, case.sent)
    wanted = {str(next((status for status in case.statuses if status >= 400), "closed"))}
    if {"none", "eof"} & case.words:  # the request is incomplete
        wanted.add("408")
    if outcomes[-2:] in (["404", "closed"], ["405", "closed"]):
        return "as it should"  # the server read neither its body nor the bytes behind it
    if outcomes[-1] in wanted and all(outcome in SERVED for outcome in outcomes[:-1]):
        return "as it should"
    return f"{outcomes}, not {wanted} at the end"


MORE_FRAGMENTS = [b"a" * 9000, b"X: a\r\n" * 120, b"ffffffff\r\n", b"\x16\x03\x01\x02"]


@kind("rude", 12, "refused", "served", "closed", "served, then refused", "served, then closed")
async def damaged(client: Client, rng: random.Random) -> str:
    """Valid requests with some bytes replaced."""
    body, _ = order(rng)
    good = [
        get("/io/wait/1"),
        post(body, "/io/order", JSON),
        post(body, f"/cpu/order{some(rng)}", JSON),
        get("/io/upload", "Transfer-Encoding: chunked", method="POST") + chunked(b"hello", b"you"),
    ]
    data = b"".join(rng.choice(good) for _ in range(rng.randrange(1, 4)))
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data) + 1)
        data = data[:place] + rng.choice(FRAGMENTS + MORE_FRAGMENTS) + data[place + rng.randrange(10) :]
    outcomes = await sent_and_heard(client, rng, data)
    served = [outcome for outcome in outcomes if outcome in (*SERVED, KILLED)]
    others = outcomes[len(served) :]
    if others and (len(others) > 1 or others[0] not in (*REFUSED, "408", "closed")):
        return str(outcomes)
    end = "" if not others else "closed" if others == ["closed"] else "refused"
    return ", then ".join(["served"] * bool(served) + [end] * bool(end))


async def sent_and_heard(client: Client, rng: random.Random, data: bytes) -> list[str]:
    """Return all outcomes until the connection ends or stays silent for a while."""
    await client.open()
    with contextlib.suppress(ConnectionError):
        await dribble(client, rng, data, rng.choice([1, 1, 2, 5]), 0.01)
    outcomes: list[str] = []
    while not outcomes or outcomes[-1] in (*SERVED, KILLED):
        try:
            outcome = await client.end()
            outcomes += [outcome] if outcome != "100" else []  # the final response is still to come
        except ConnectionResetError:
            outcomes.append("closed")
    return outcomes


# All clients


class Traffic:
    """All actors, and the outcomes of their requests."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.seed = port, seed
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.unexpected: dict[str, list[str]] = defaultdict(list)  # the bytes of each case
        self.is_over = False
        self._go = asyncio.Event()
        self._acting = 0
        self._calm = asyncio.Event()
        self.running: asyncio.Future[None]

    async def act(self, group: str, number: int) -> None:
        rng, client = random.Random(f"{self.seed} {group} {number}"), Client(self.port)
        names = list(KINDS[group])
        weights = [kind.weight for kind in KINDS[group].values()]
        while not self.is_over:
            if not self._go.is_set():
                client.close()
                self._count_acting(-1)
                await self._go.wait()
                self._count_acting(1)
            else:
                await self._play(client, rng, group, rng.choices(names, weights)[0])
        client.close()

    def _count_acting(self, more: int) -> None:
        self._acting += more
        if not self._acting:
            self._calm.set()

    async def _play(self, client: Client, rng: random.Random, group: str, name: str) -> None:
        client.sent = b""
        outcome, kind = "", KINDS[group][name]
        try:
            async with asyncio.timeout(GUARD):
                outcome = await kind.script(client, rng)
        except TimeoutError:
            outcome = f"it hung for {GUARD:g} s"
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            outcome = CUT if "Timeout" not in type(error).__name__ else repr(error)
        except (AssertionError, ValueError, KeyError, Wrong, WebSocketException) as error:
            outcome = f"{type(error).__name__}: {error}"
        self.outcomes[name][outcome] += 1
        if outcome not in kind.allowed:
            self.unexpected[f"{name}: {outcome}"].append(client.bytes_seen())
        if group != "ordinary" or outcome not in kind.allowed or outcome == CUT:
            client.close()

    async def run(self) -> None:
        actors = [(group, number) for group, count in ACTORS.items() for number in range(count)]
        self._acting = len(actors)
        try:
            async with asyncio.TaskGroup() as tasks:
                for group, number in actors:
                    tasks.create_task(self.act(group, number))
        finally:
            self._calm.set()  # if an actor fails, do not wait for the others

    async def pause(self) -> None:
        """Let all actors finish their requests and close their connections."""
        self._calm.clear()
        self._go.clear()
        await self._calm.wait()
        if self._acting:  # an actor has failed, which has ended the others
            await self.running

    def go(self) -> None:
        self._go.set()


# The server


class Sample(NamedTuple):
    """The memory of the server at one moment."""

    when: float  # seconds since the start
    server: int  # bytes of the server process (RSS)
    family: int  # bytes of server, forkserver and workers; shared pages count once (PSS)
    descriptors: Counter[str]

    def __str__(self) -> str:
        held = f"{self.server / MiB:.1f} MiB, with its workers {self.family / MiB:.1f} MiB"
        return f"{held}, {self.descriptors.total()} descriptors"


class Server:
    """The server process under test."""

    def __init__(self, folder: Path) -> None:
        (folder / "file.bin").write_bytes(FILE)
        self.log = folder / "log"
        self.samples: list[Sample] = []
        self.killed = 0
        self.began = time.monotonic()
        command = [sys.executable, "-m", "tinysvc", "soak_app.py", "--port", "0"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *(word for option in OPTIONS.items() for word in option)],
                cwd=TESTS,
                env={**MALLOC, **os.environ, "SOAK_FILES": str(folder)},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.port = self._port()

    def _port(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(rb"listening on http://127.0.0.1:(\d+)", line):
                return int(found[1])
        sys.exit(f"the server did not start:\n{self.log.read_text()}")

    def sample(self) -> Sample:
        pid = self.process.pid
        family = [pid, *descendants(pid)]
        return Sample(
            time.monotonic() - self.began,
            memory(pid, "Rss"),
            sum(memory(each, "Pss") for each in family),
            descriptors(pid),
        )

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.samples.append(await asyncio.to_thread(self.sample))

    async def kill_workers(self, rng: random.Random) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1 / KILL_EVERY))
            workers = await asyncio.to_thread(workers_below, self.process.pid)
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    self.killed += 1

    async def census(self) -> dict[str, int]:
        """Return the server's own counts once they no longer change: the last jobs and connections have ended."""
        client, seen = Client(self.port), [{"": 0}]
        for _ in range(20):
            await asyncio.sleep(1)
            found = json.loads((await client.ask(get("/io/census"))).body)
            objects = found.pop("objects")
            ready = (await client.ask(get("/readyz"))).status
            seen.append({**found, "ready": ready, **descriptors(self.process.pid)})
            if seen[-1] == seen[-2] and ready == 200:
                break
        client.close()
        return {**seen[-1], "objects": objects}


def memory(pid: int, field: str) -> int:
    """Bytes of /proc/PID/smaps_rollup; 0 for a process that has ended."""
    try:
        found = re.search(rf"^{field}: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else 0


def descriptors(pid: int) -> Counter[str]:
    """The number of open descriptors of each kind."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            kinds[re.sub(r"[\d\[\]]+| \(deleted\)|:|/memfd:", "", os.readlink(entry))] += 1
    return kinds


# The verdict

LOG_LINES = {
    "a deadline has passed": r"ERROR tinysvc: GET /cpu/late/\S+ .*: 504, the job ran past its deadline of 0\.2 s",
    "where its job was": r"WARNING tinysvc\.executor: worker \d+ was killed: it ran a job past its deadline.*",
    "a worker died in a job": r"ERROR tinysvc: [A-Z]+ /cpu/.*: 500, worker \d+ was killed"
    r"( by SIGKILL from outside|: it could not be given a job: \[Errno 32\]).*",
    "a worker died in a stream": r"ERROR tinysvc\.http: <Request GET /cpu/(?:download|events|lines)/\d+> .*: "
    r".*stream.*: tinysvc\.core\.errors\.WorkerDied: worker \d+ was killed by SIGKILL.*",
    "a worker died as it began": r"(ERROR tinysvc\.executor: )?worker \d+ was killed by SIGKILL from outside the pool"
    r"(; trying again in 0\.1 s)?",
    "what a drain waits for": r"INFO tinysvc: draining: waiting for the requests of \d+ connections, .*",
    "a worker died": r"WARNING tinysvc\.executor: worker \d+ was killed by SIGKILL from outside the pool.*",
    "the loop was held for less than a second": r"WARNING tinysvc: .* blocks the event loop, for 0\.\d+ s so far, .*",
    "where it was": r'  File ".*", line \d+,? in \S+|    .*',
    "it was free again in less than a second": r"INFO tinysvc: the event loop is free again, after 0\.\d+ s",
}
"""The allowed log lines and their meanings. A busy machine, too, blocks an event loop for a moment."""

MAY_GROW = {"tinysvc": 12, "objects": 5000}
"""Allowed growth between the warm-up and the rest: each of three pools keeps up to four arenas (memfd:tinysvc) for
reuse, and caches may have filled."""


class Verdict:
    """Collect the claims that hold and those that do not."""

    def __init__(self) -> None:
        self.faults = 0

    def say(self, holds: bool, sentence: str, more: str = "") -> None:
        self.faults += not holds
        print(f"{'  ok' if holds else ' NOT'}  {sentence}", flush=True)
        if more and not holds:
            print(more, flush=True)


def shared_memory() -> set[str]:
    """The named segments, without those of other programs on this machine: semaphores, and those of databases."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith(("sem.", "PostgreSQL.", "tinysvc-pg-"))}


async def soak(seconds: float, seed: int, folder: Path) -> int:
    """Run the soak; return the number of faults."""
    memory_before = shared_memory()
    server, verdict = Server(folder), Verdict()
    chain = soak_calls.Chain(folder, seed)
    family = descendants(server.process.pid)
    traffic, warm = Traffic(server.port, seed), min(WARM, seconds / 3)
    print(f"{seconds:g} s of traffic with --seed {seed}; process {server.process.pid}, port {server.port}", flush=True)
    try:
        running = traffic.running = asyncio.ensure_future(traffic.run())
        await disturbed(traffic, server, chain, warm, random.Random(f"{seed} early"))
        before, rests = await server.census(), [server.sample()]
        pauses = PAUSES if seconds >= 60 else 1
        for number in range(pauses):
            await disturbed(traffic, server, chain, (seconds - warm) / pauses, random.Random(f"{seed} {number}"))
            after = await server.census()
            rests.append(server.sample())
        family |= descendants(server.process.pid)
        traffic.is_over = True
        traffic.go()
        await running
        judge_outcomes(verdict, traffic, server.killed)
        judge_memory(verdict, server.samples, rests)
        judge_census(verdict, before, after)
        await judge_end(verdict, server)
        await chain.judge(verdict.say)
    finally:
        server.process.kill()
        server.process.wait()
        chain.kill()
    verdict.say(not any(Path(f"/proc/{pid}").exists() for pid in family), "no process of the server is left")
    left = shared_memory() - memory_before
    verdict.say(not left, "no shared memory is left", f"      left: {left}")
    judge_log(verdict, server.log.read_text().splitlines())
    print(f"{verdict.faults} faults", flush=True)
    return verdict.faults


async def disturbed(
    traffic: Traffic, server: Server, chain: soak_calls.Chain, seconds: float, rng: random.Random
) -> None:
    """Let the traffic run for this many seconds, kill workers and sample memory; then pause all clients."""
    others = [asyncio.ensure_future(each) for each in (server.watch(), server.kill_workers(rng), chain.traffic())]
    traffic.go()
    await asyncio.sleep(seconds)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.gather(traffic.pause(), chain.rest())


def judge_outcomes(verdict: Verdict, traffic: Traffic, killed: int) -> None:
    lost = 0
    for group, kinds in KINDS.items():
        for name in kinds:
            outcomes = traffic.outcomes[name]
            lost += outcomes[KILLED] if name != "cpu_batched" else outcomes[KILLED] // 8
            shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(6))
            print(f"      {group:9} {name:17} {shown}")
    total = sum(outcomes.total() for outcomes in traffic.outcomes.values())
    count = sum(map(len, traffic.unexpected.values()))
    verdict.say(not count, f"{total} scenes, {count} of them with an outcome that their kind does not name")
    for outcome, seen in traffic.unexpected.items():
        print("\n".join([f"      {len(seen)} x {outcome}", *seen[:MOST_SHOWN]]))
    unseen = [name for kinds in KINDS.values() for name in kinds if not traffic.outcomes[name]]
    verdict.say(not unseen, "every kind of traffic occurred", f"      but {unseen}")
    verdict.say(lost <= killed, f"{lost} responses were lost by {killed} killed workers")


def judge_memory(verdict: Verdict, samples: list[Sample], rests: list[Sample]) -> None:
    """Compare the memory of each pause with that of the first one."""
    for sample in samples[:: max(1, len(samples) // 12)]:
        print(f"      after {sample.when:4.0f} s: {sample}")
    for name, slack in SLACK.items():
        held = [getattr(sample, name) for sample in rests]
        shown = ", ".join(f"{each / MiB:.1f}" for each in held)
        verdict.say(max(held) <= held[0] + slack, f"memory of the {name} at rest is flat, in MiB: {shown}")
        print(f"      under load: {statistics.median(getattr(sample, name) for sample in samples) / MiB:.1f} (median)")


def judge_census(verdict: Verdict, before: dict[str, int], after: dict[str, int]) -> None:
    grown = {
        what: f"{before.get(what, 0)} to {count}"
        for what, count in after.items()
        if count > before.get(what, 0) + MAY_GROW.get(what, 0)
    }
    counts = ", ".join(f"{count} {what}" for what, count in after.items())
    verdict.say(not grown, f"nothing has grown between warm-up and rest: {counts}", f"      grown: {grown}")
    verdict.say(after["open"] == 0, "no generator and no reader is still running")


UPLOADED = b"".join(map(block, range(8)))
LAST_REQUESTS = [
    (get("/io/wait/1500"), b"", b'{"waited":1500}'),
    (get("/thread/wait/1500"), b"", b'{"waited":1500}'),
    (get("/cpu/burn/700"), b"", b'{"burnt":700}'),
    (get("/io/download/100"), b"", b"".join(map(block, range(100)))),
    (get("/cpu/download/100"), b"", b"".join(map(block, range(100)))),
    *(
        (post(UPLOADED, path)[:-1000], UPLOADED[-1000:], b'{"size":%d,"crc":%d}' % (8 * BLOCK, checksum(8)))
        for path in ("/io/upload", "/cpu/upload")
    ),
]
"""Requests that run when SIGTERM comes: the bytes before it, the bytes after it, and the body of the response."""


SOON = 5.0
"""Seconds in which a drain ends endless streams: much less than the time that other requests get."""


async def judge_end(verdict: Verdict, server: Server) -> None:
    idle, terminated = Client(server.port), asyncio.Event()
    endings = [await begin_talk(server.port), *[await begin_stream(server.port, path) for path in UNITS]]
    at_rest = json.loads((await idle.ask(get("/io/census"))).body)["tasks"]
    under_way = [
        asyncio.ensure_future(last_request(Client(server.port), terminated, *request)) for request in LAST_REQUESTS
    ]
    tasks = 0
    while tasks < at_rest + len(under_way):
        await asyncio.sleep(0.01)
        tasks = json.loads((await idle.ask(get("/io/census"))).body)["tasks"]
    server.process.terminate()
    terminated.set()
    ends = await asyncio.gather(*endings, return_exceptions=True)
    verdict.say(set(ends) == {ENDED}, f"SIGTERM: the {len(ends)} without an end are ended", f"      {ends}")
    found = await asyncio.gather(*under_way, return_exceptions=True)
    verdict.say(set(found) == {"200"}, f"the last {len(found)} requests are answered", f"      {found}")
    verdict.say(await idle.end() == "closed", "an idle connection is closed")
    status = await asyncio.to_thread(server.process.wait, 30)
    verdict.say(status == 0, f"the exit status is {status}")


ENDED = "ended in order"


async def begin_talk(port: int) -> Awaitable[str]:
    """Open a WebSocket; yield its outcome when the server drains."""
    talk = await connected(Client(port))
    await talk.send("before")
    if await talk.recv() != "before":
        raise Wrong("another message came back")

    async def rest() -> str:
        async with asyncio.timeout(SOON):
            await talk.wait_closed()
        return ENDED if talk.close_code == 1001 else f"closed with {talk.close_code}"

    return rest()


async def begin_stream(port: int, path: str) -> Awaitable[str]:
    """Read the first item of an endless stream; yield its outcome when the server drains."""
    client, unit = Client(port), UNITS[path]
    await client.send(get(f"{path}/{ANY_SIZE}?pause=0.1"))
    reading = asyncio.ensure_future(client.answer())
    while unit(0) not in client.reader.head and not reading.done():
        await asyncio.sleep(0.01)

    async def rest() -> str:
        async with asyncio.timeout(SOON):
            answer, end = await reading, await client.end()
        expected, number = b"", 0
        while len(expected) < len(answer.body):
            expected, number = expected + unit(number), number + 1
        outcome = right(answer, expected)
        return ENDED if (outcome, end) == ("200", "closed") else f"{outcome}, then {end}"

    return rest()


async def last_request(client: Client, terminated: asyncio.Event, begin: bytes, rest: bytes, expected: bytes) -> str:
    await client.open(receive_buffer=64 * 1024)
    await client.send(begin)
    await terminated.wait()
    await client.send(rest)
    outcome = right(await client.answer(), expected)
    client.close()
    return outcome


def judge_log(verdict: Verdict, lines: list[str]) -> None:
    kinds = Counter(next((kind for kind, form in LOG_LINES.items() if re.fullmatch(form, line)), "") for line in lines)
    unknown = [n for n, line in enumerate(lines) if not any(re.fullmatch(form, line) for form in LOG_LINES.values())]
    counts = ", ".join(f"{count} x {kind}" for kind, count in kinds.items() if kind)
    more = "\n".join(f"      {line}" for number in unknown[:20] for line in lines[number : number + 12])
    verdict.say(not unknown, f"the log has {len(unknown)} lines of no known kind, and {counts or 'no other'}", more)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of traffic; default: 600")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="default: a new one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return min(1, uvloop.run(soak(arguments.seconds, arguments.seed, Path(folder))))


if __name__ == "__main__":
    sys.exit(main())
