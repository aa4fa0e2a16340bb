"""Any bytes give requests, one 4xx or 5xx answer, or a closed connection; never another exception, never a hang, never
more memory than the limits allow.

`check` holds one connection to that sentence; what breaks it is an AssertionError. The first CHOICES bytes of its input
choose the limits, what the handlers do, how the rest is cut into segments, and what else happens: a client that does
not read, that leaves, a clock that goes on. The rest is what the client sends.

There is no socket: asyncio's own loop is turned by hand, its clock stands still until it is moved, and the transport
is a model of uvloop's. So a run takes less than a millisecond, has no luck in it, and what hangs is seen at once. The
constants of the engine are made small, so that a few hundred bytes are much.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, NamedTuple, cast

from http_ends import ReceivedResponse
from tinysvc import http
from tinysvc.core.errors import HTTPError, ProtocolError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Handler, Response, problem_response
from tinysvc.core.settings import Settings
from tinysvc.server.connections import Connections
from tinysvc.wire import bodies, chunked, inbox, sending

CHOICES = 16
"""Bytes at the beginning of an input that choose what happens; the others are sent."""

MOST_TURNS = 400
"""Turns of the loop after which a connection with nothing more to read or to wait for is at rest, else it hangs."""

MOST_SECONDS = 120
"""Seconds of silence after which every connection is closed: more than any sequence of the deadlines."""


# The one place that knows names which are not public


class Scale(NamedTuple):
    """The engine's constants, by their names, and what the transport does at once."""

    constants: dict[str, int]
    most_read: int
    high_water: int

    @contextmanager
    def applied(self) -> Iterator[None]:
        for module, name in _PLACES:
            setattr(module, name, self.constants.get(name, _REAL[name]))
        try:
            yield
        finally:
            for module, name in _PLACES:
                setattr(module, name, _REAL[name])


_SMALL = {"READ_SIZE": 64, "SLICE": 64, "SEPARATE_WRITE": 80, "MAX_DISCARD": 512, "CHUNKS_AT_ONCE": 3}
_PLACES = [
    (module, name) for module in (http, bodies, chunked, inbox, sending) for name in _SMALL if hasattr(module, name)
]
_REAL = {name: getattr(module, name) for module, name in _PLACES}
REAL = Scale({}, most_read=256_000, high_water=64 * 1024)
SMALL = Scale(_SMALL, most_read=256, high_water=64)


def bytes_held(connection: http.Connection) -> int:
    """What a connection keeps of what came: not yet taken, held back, or half a line of a chunked body."""
    wire = connection.wire
    return len(wire.buffer) + connection.inbox.size + (wire.body.held if wire.body else 0)


# The loop and the transport


class Loop(asyncio.BaseEventLoop):
    """asyncio's loop, turned by hand; it waits for nothing, and its clock stands until it is moved."""

    def __init__(self, faults: list[Any]) -> None:
        super().__init__()
        self.now = 0.0
        self.faults = faults  # what nobody took
        self._selector = self
        self.set_exception_handler(lambda loop, context: faults.append(context))

    def time(self) -> float:
        return self.now

    def select(self, timeout: float | None) -> list[Any]:
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def turn(self) -> None:
        cast(Any, self)._run_once()

    @property
    def is_at_rest(self) -> bool:
        return not cast(Any, self)._ready


class NoSocket:
    """Of which nothing can be asked."""

    def fileno(self) -> int:
        raise OSError("there is no socket")


class Transport(asyncio.Transport):
    """The server's end as uvloop has it, the network, and how much the client reads.

    In a turn it makes `reads` reads at most, each of one segment; the end of file is one.
    """

    def __init__(self, loop: Loop, scale: Scale, reads: int) -> None:
        self._extra: dict[str, Any] = {"peername": ("client", 1), "sockname": ("server", 2), "socket": NoSocket()}
        super().__init__(self._extra)
        self._loop, self._scale, self._reads = loop, scale, reads
        self._protocol: Any = None
        self._reading = False
        self._paused = False  # the protocol
        self._unsent = bytearray()
        self.segments: deque[bytes] = deque()  # on their way to the server; b"" is the end
        self.sent = bytearray()  # what the client has read
        self.window = inf  # what the client reads before it stops
        self.ended = self.closing = self.lost = self.closed = False

    def connect(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        self._reading = True

    # The network's side

    @property
    def has_work(self) -> bool:
        return not self.lost and bool((self._reading and self.segments) or (self._unsent and self.window))

    def work(self) -> None:
        """What the kernel has to tell in one turn."""
        self._flush()
        for _ in range(self._reads):
            if self._reading and self.segments:
                self._receive()

    def _receive(self) -> None:
        segment = self.segments.popleft()
        if not segment:
            self._reading = False
            self.segments.appendleft(b"")  # who reads on is told again
            if not self._protocol.eof_received():
                self.close()
        elif isinstance(self._protocol, asyncio.BufferedProtocol):
            room: Any = self._protocol.get_buffer(-1)
            assert len(room), "a buffer without room is a busy loop"
            count = min(len(room), len(segment), self._scale.most_read)
            room[:count] = segment[:count]
            self._put_back(segment[count:])
            self._protocol.buffer_updated(count)
        else:
            self._put_back(segment[self._scale.most_read :])
            self._protocol.data_received(segment[: self._scale.most_read])

    def _put_back(self, rest: bytes) -> None:
        if rest:
            self.segments.appendleft(rest)

    def _flush(self) -> None:
        if not self._unsent or not self.window or self.lost:
            return
        count = int(min(len(self._unsent), self.window))
        self.sent += self._unsent[:count]
        self.window -= count
        del self._unsent[:count]
        if self._paused and len(self._unsent) <= self._scale.high_water // 4:
            self._paused = False
            self._protocol.resume_writing()
        if self.closing and not self._unsent:
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self._reading = False
            self._loop.call_soon(self._lose_socket, error)

    def _lose_socket(self, error: Exception | None) -> None:
        """TLS says so one turn later, and knows no socket until then."""
        self._extra.clear()
        self._loop.call_soon(self._say_lost, error)

    def _say_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._protocol.connection_lost(error)

    def reset(self) -> None:
        self._lose(ConnectionResetError(104, "Connection reset by peer"))

    # The protocol's side

    def _must_be_open(self) -> None:
        if self.closed:
            raise RuntimeError("unable to perform operation on a transport; the handler is closed")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._must_be_open()
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self.lost:
            return
        self._unsent += data
        if len(self._unsent) > self._scale.high_water:
            self._flush()
        if len(self._unsent) > self._scale.high_water and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        self._must_be_open()
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self.closing:
            self._reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self._reading, self.closing = False, True
        if not self._unsent:
            self._lose(None)

    def abort(self) -> None:
        self._lose(None)


# The application


class Behaviour(NamedTuple):
    """What a handler does. `steady`: its answer cannot depend on how its request was cut."""

    handle: Callable[[App, Request, int], Awaitable[Response]]
    steady: bool = True
    cuts_off: bool = False  # in the middle of an answer
    logs: str = ""


class App:
    """The handlers: each request has the next of the chosen behaviours."""

    def __init__(self, behaviours: list[Behaviour], loop: Loop) -> None:
        self._behaviours = behaviours
        self._loop = loop
        self._released = loop.create_future()
        self._hurried = False
        self.seen: list[Request] = []
        self.used: list[Behaviour] = []
        self.transport: Transport | None = None

    async def __call__(self, request: Request) -> Response:
        assert self.transport is not None
        assert not self.transport.ended, "a request was taken after the last answer"
        number = len(self.seen)
        behaviour = self._behaviours[number % len(self._behaviours)]
        self.seen.append(request)
        self.used.append(behaviour)
        response = await behaviour.handle(self, request, number)
        response.add_header("x-number", str(number))
        return response

    def release(self) -> None:
        """Let go who waits."""
        if not self._released.done():
            self._released.set_result(None)
        self._released = self._loop.create_future()

    def hurry(self) -> None:
        """Let go who waits, and who comes from now on."""
        self._hurried = True
        self.release()

    async def reads(self, request: Request, number: int) -> Response:
        return Response(told(request) + await request.body())

    async def ignores(self, request: Request, number: int) -> Response:
        return Response(told(request))

    async def streams(self, request: Request, number: int) -> Response:
        return Response(told(request) + b"".join([piece async for piece in request.stream(kept=number % 2 == 1)]))

    async def is_careless(self, request: Request, number: int) -> Response:
        try:
            return Response(told(request) + await request.body())
        except ProtocolError as first:
            fault = first
        try:
            await request.body()
        except ProtocolError as second:
            if second is fault:
                return Response(told(request))
        raise AssertionError("a fault in a body was forgotten")

    async def limits(self, request: Request, number: int) -> Response:
        try:
            request.limit_body(20)
            return Response(told(request) + await request.body())
        except HTTPError as error:
            return problem_response(error)

    async def stops_early(self, request: Request, number: int) -> Response:
        async for _ in request.stream():
            break
        return Response(told(request))

    async def denies(self, request: Request, number: int) -> Response:
        return Response(told(request), 403)

    async def raises(self, request: Request, number: int) -> Response:
        raise ValueError("the handler's own")

    async def has_no_content(self, request: Request, number: int) -> Response:
        await request.body()
        return Response(b"", 204 if number % 2 else 304)

    async def sends_much(self, request: Request, number: int) -> Response:
        content = told(request) + await request.body() + b"x" * 300
        return Response(memoryview(content) if number % 2 else content)

    async def sends_a_stream(self, request: Request, number: int) -> Response:
        return Response(pieces(told(request), b"", await request.body(), b"x" * 150))

    async def declares(self, request: Request, number: int) -> Response:
        content = told(request) + await request.body()
        return Response(pieces(content[:7], content[7:]), headers={"content-length": str(len(content))})

    async def lies(self, request: Request, number: int) -> Response:
        return Response(pieces(b"12345"), headers={"content-length": "6" if number % 2 else "4"})

    async def breaks_off(self, request: Request, number: int) -> Response:
        async def fail() -> AsyncIterator[bytes]:
            yield b"half"
            raise ValueError("the stream's own")

        return Response(fail())

    async def echoes(self, request: Request, number: int) -> Response:
        return Response(request.stream())

    async def waits(self, request: Request, number: int) -> Response:
        if not self._hurried:
            if number % 2:
                request.on_disconnect = self.release
            await asyncio.shield(self._released)
        return Response(told(request) + await request.body())


def told(request: Request) -> bytes:
    """What a request says, but for its body."""
    fields = b"".join(b"%b=%b;" % field for field in request.headers.raw)
    return f"{request.method} {request.raw_path} {request.raw_query} ".encode() + fields + b" "


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


_FAILED = "the stream failed half-way"
BEHAVIOURS = [
    Behaviour(App.reads),
    Behaviour(App.ignores, steady=False),  # what is left of its body is swallowed or not
    Behaviour(App.streams),
    Behaviour(App.is_careless),
    Behaviour(App.limits, steady=False),
    Behaviour(App.stops_early, steady=False),
    Behaviour(App.denies, steady=False),
    Behaviour(App.raises, logs="this is a bug in tinysvc"),
    Behaviour(App.has_no_content),
    Behaviour(App.sends_much),
    Behaviour(App.sends_a_stream),
    Behaviour(App.declares),
    Behaviour(App.lies, steady=False, cuts_off=True, logs=_FAILED),
    Behaviour(App.breaks_off, steady=False, cuts_off=True, logs=_FAILED),
    Behaviour(App.echoes, steady=False, cuts_off=True),
    Behaviour(App.waits),
]


# What an input chooses


_LIMITS: dict[str, Any] = {
    "max_request_line": 100,
    "max_header_size": 400,
    "max_header_field": 120,
    "max_headers": 8,
    "max_body_size": 300,
    "max_pipelined": 600,
}
SETTINGS = [
    Settings(**_LIMITS),
    Settings(**_LIMITS, max_requests=2),
    Settings(**_LIMITS, half_close=True),
    Settings(**_LIMITS, max_body_memory=100, min_body_rate=50),
    Settings(),
]
_SCARCE = SETTINGS[3]  # what comes whole with its head needs no room

STEPS = (CHOICES - 6) // 2
STEADY_ACTS = ("nothing", "turn", "rest", "stop reading", "read some", "read all", "release")
ACTS = (*STEADY_ACTS, "wait", "wait long", "end", "reset", "drain")
ENDS = ("end", "silence", "deaf", "reset")


class Plan(NamedTuple):
    """What happens beside the bytes."""

    settings: Settings
    behaviours: list[Behaviour]
    scale: Scale = REAL
    reads: int = 1  # in a turn
    piece: int = 0  # bytes in a segment; 0 for all that is sent at once
    end: str = "end"
    steps: tuple[tuple[int, str], ...] = ()  # so many bytes are sent, then this happens

    @property
    def steady(self) -> bool:
        """Whether nothing happens but bytes, in whatever pieces."""
        return self.end == "end" and all(act in STEADY_ACTS for _, act in self.steps) and self.settings is not _SCARCE

    @property
    def steady_answers(self) -> int | None:
        """So many answers do not depend on how their requests were cut; None if all."""
        unsteady = (number for number, behaviour in enumerate(self.behaviours) if not behaviour.steady)
        return next(unsteady, None)


def plan(choices: bytes) -> Plan:
    """`choices` as a plan; any bytes are one."""
    limits, a, b, c, manner, end, *steps = choices.ljust(CHOICES, b"\0")
    return Plan(
        SETTINGS[limits % len(SETTINGS)],
        [BEHAVIOURS[choice % len(BEHAVIOURS)] for choice in (a, b, c)],
        REAL if manner & 1 else SMALL,
        32 if manner & 2 else 1,
        (0, 1, 3, 17)[manner >> 2 & 3],
        ENDS[end % len(ENDS)],
        tuple((size, ACTS[act % len(ACTS)]) for size, act in zip(steps[::2], steps[1::2], strict=True)),
    )


# The run


class Conversation:
    """A connection with its client, turn by turn."""

    def __init__(self, loop: Loop, plan: Plan, handler: Handler | None = None) -> None:
        self.loop, self.plan = loop, plan
        self.app = App(plan.behaviours, loop)
        self.connections = Connections(handler or self.app, plan.settings)
        events = self.connections()
        self.connection = events.connection
        self.transport = self.app.transport = Transport(loop, plan.scale, plan.reads)
        self.transport.connect(events)
        limits = plan.settings
        self._most_held = (
            limits.max_request_line + limits.max_header_size + limits.max_pipelined + 2 * plan.scale.most_read
        )

    @property
    def is_over(self) -> bool:
        return self.transport.closed and self.connection.task.done()

    def send(self, data: bytes) -> None:
        size = self.plan.piece or len(data) or 1
        self.transport.segments.extend(data[i : i + size] for i in range(0, len(data), size))

    def turn(self) -> None:
        self.transport.work()
        self.loop.turn()
        assert bytes_held(self.connection) <= self._most_held, "more is held than the limits allow"
        assert 0 <= self.connections.body_memory <= self.plan.settings.max_body_memory

    def rest(self) -> None:
        """Until nothing happens any more."""
        for _ in range(MOST_TURNS + 4 * sum(map(len, self.transport.segments))):
            if self.loop.is_at_rest and not self.transport.has_work:
                return
            self.turn()
        raise AssertionError("it goes on and on")

    def wait(self, seconds: int) -> None:
        """Nothing comes for so long. A bigger step would be a standstill of the process, which deadlines leave out."""
        for _ in range(seconds):
            self.loop.now += 1
            self.turn()
            self.rest()
            if self.is_over:
                break

    def act(self, act: str) -> None:
        if act == "turn":
            self.turn()
        elif act == "rest":
            self.rest()
        elif act == "stop reading":
            self.transport.window = 0
        elif act == "read some":
            self.transport.window += 100
        elif act == "read all":
            self.transport.window = inf
        elif act == "release":
            self.app.release()
        elif act == "wait":
            self.wait(4)
        elif act == "wait long":
            self.wait(20)
        elif act == "end":
            self.transport.segments.append(b"")
        elif act == "reset":
            self.transport.reset()
        elif act == "drain":
            self._drain = self.loop.create_task(self.connections.drain(5))

    def play(self, data: bytes) -> None:
        """All of the plan, to the end of the connection."""
        for size, act in self.plan.steps:
            self.send(data[:size])
            data = data[size:]
            self.act(act)
        self.send(data)
        self.rest()
        self.finish()

    def finish(self) -> None:
        self.app.hurry()
        if self.plan.end != "deaf":
            self.act("read all")
        self.rest()
        if self.plan.end in ("end", "reset"):
            self.act(self.plan.end)
            self.rest()
        if self.plan.end != "end":
            self.wait(MOST_SECONDS)
        assert self.is_over, f"{self.connection!r} does not end"

    def abandon(self) -> None:
        """Leave nothing open, also where it was found wanting."""
        self.connections.abort()
        for _ in range(10):
            self.loop.turn()

    def judge(self) -> list[ReceivedResponse]:
        """The answers, if all that can be asked of any conversation holds."""
        plan, app, task = self.plan, self.app, self.connection.task
        assert not task.cancelled()
        assert task.exception() is None, f"{task.exception()!r} escaped"
        assert not self.loop.faults, self.loop.faults
        assert not self.connections.open
        assert self.connections.body_memory == 0, "memory was not given back"
        may_be_cut = not plan.steady or any(behaviour.cuts_off for behaviour in app.used)
        answers = parse(bytes(self.transport.sent), app.seen, may_be_cut)
        if not may_be_cut:
            assert len(answers) >= len(app.seen), "a request has no answer"
        return answers


def parse(sent: bytes, seen: list[Request], may_be_cut: bool) -> list[ReceivedResponse]:
    """All final answers, each to its request; the last one may be a refusal."""
    answers: list[ReceivedResponse] = []
    continues = 0
    while sent:
        assert not (answers and answers[-1].closes), f"{sent!r} came behind the last answer"
        request = seen[len(answers)] if len(answers) < len(seen) else None
        taken = take_answer(sent, request)
        if taken is None:
            assert may_be_cut, f"the answer {sent!r} is cut off"
            break
        answer, sent = taken
        if answer.status == 100:
            continues += 1
        else:
            check_answer(answer, request, len(answers))
            answers.append(answer)
    assert continues <= sum(request.headers.get("expect", "").lower() == "100-continue" for request in seen)
    return answers


def take_answer(sent: bytes, request: Request | None) -> tuple[ReceivedResponse, bytes] | None:
    """The first answer and what is behind it; None if it is not whole."""
    head, end, rest = sent.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    status_line = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9][0-9]) [A-Za-z' -]*", first)
    assert status_line, first
    fields = dict[str, str]()
    for line in lines:
        field = re.fullmatch(r"([a-z0-9-]+): ([\t\x20-\x7e\x80-\xff]*)", line)
        assert field, line
        assert field[1] not in fields, line
        fields[field[1]] = field[2]
    status = int(status_line[1])
    taken = take_content(rest, status, fields, request)
    return taken and (ReceivedResponse(status, fields, taken[0]), taken[1])


def take_content(
    rest: bytes, status: int, fields: dict[str, str], request: Request | None
) -> tuple[bytes, bytes] | None:
    framing = {"content-length", "transfer-encoding"} & fields.keys()
    if status == 100:
        assert not fields
        return b"", rest
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", fields["date"])
    if status in (204, 304):
        assert not framing, fields
        return b"", rest
    if request is not None and request.method == "HEAD":
        return b"", rest
    assert len(framing) <= 1, fields
    if "content-length" in fields:
        length = int(fields["content-length"])
        return (rest[:length], rest[length:]) if length <= len(rest) else None
    if not framing:
        assert fields["connection"] == "close", "who should know where it ends?"
        return rest, b""
    assert fields["transfer-encoding"] == "chunked"
    return take_chunks(rest)


def take_chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    content = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        assert re.fullmatch(rb"0|[1-9a-f][0-9a-f]*", line), line
        size = int(line, 16)
        if len(rest) < size + 2:
            return None
        assert rest[size : size + 2] == b"\r\n", rest
        content, rest = content + rest[:size], rest[size + 2 :]
        if not size:
            return content, rest


def check_answer(answer: ReceivedResponse, request: Request | None, number: int) -> None:
    given = answer.fields.get("x-number")
    if given is None:
        assert answer.closes, f"{answer} refuses, but does not close"
        assert 400 <= answer.status <= 599, answer
        assert answer.fields["content-type"] == "application/problem+json", answer
    else:
        assert request is not None, f"{answer} has no request"
        assert int(given) == number, "the answers are not in order"


class Records(logging.Handler):
    """Takes what is logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = f" because of {record.exc_info[1]!r}" if record.exc_info else ""
        self.messages.append(record.getMessage() + cause)


@contextmanager
def recorded() -> Iterator[list[str]]:
    records, loggers = Records(), [logging.getLogger(name) for name in ("tinysvc", "asyncio")]
    for logger in loggers:
        logger.addHandler(records)
    try:
        yield records.messages
    finally:
        for logger in loggers:
            logger.removeHandler(records)


def converse(plan: Plan, data: bytes, faults: list[Any]) -> tuple[list[ReceivedResponse], App]:
    """One connection from its first byte to its end, held to all that holds for any. The answers."""
    loop = Loop(faults)
    asyncio._set_running_loop(loop)
    with plan.scale.applied(), recorded() as messages:
        conversation = Conversation(loop, plan)
        try:
            conversation.play(data)
            answers = conversation.judge()
        finally:
            conversation.abandon()
            asyncio._set_running_loop(None)
            loop.close()
    app = conversation.app
    expected = [behaviour.logs for behaviour in app.used if behaviour.logs]
    for message in messages:
        assert any(words in message for words in expected), message
    return answers, app


def check(data: bytes) -> None:
    """Hold a connection to the sentence above. AssertionError, or whatever escapes, is a finding."""
    faults: list[Any] = []
    compare(plan(data[:CHOICES]), data[CHOICES:], faults)
    gc.collect(0)  # what was never awaited or retrieved says so now
    assert not faults, faults


def compare(chosen: Plan, sent: bytes, faults: list[Any]) -> None:
    """Play it, and then again in one piece where that must make no difference."""
    answers, app = converse(chosen, sent, faults)
    if chosen.steady:
        plain = chosen._replace(scale=REAL, reads=1, piece=0, steps=())
        others, other_app = converse(plain, sent, faults)
        same = chosen.steady_answers
        if any(behaviour.cuts_off for behaviour in chosen.behaviours):  # and what was not read yet is lost with it
            same = min(len(answers), len(others), same or 0)
        assert contents(answers[:same]) == contents(others[:same]), "how the bytes were cut did matter"
        for request, other in zip(app.seen, other_app.seen, strict=False):
            assert told(request) == told(other), "how the bytes were cut made another request"


def contents(answers: list[ReceivedResponse]) -> list[tuple[int, bool, bytes]]:
    """What must not depend on the cuts. Of a refusal that is the status: its sentence is about the first fault seen."""
    return [(answer.status, answer.closes, answer.body if answer.status < 400 else b"") for answer in answers]


BEFORE = b"GET /before HTTP/1.1\r\nHost: x\r\n\r\n"


def seeds(sent: bytes, number: int) -> list[bytes]:
    """Inputs to begin with, one behaviour each: whole, byte by byte, behind equal requests, to who does not read."""
    behaviour = bytes([number % len(BEHAVIOURS)] * 3)
    stops = bytes([0, ACTS.index("stop reading"), 40, ACTS.index("rest"), 0, ACTS.index("read some")])
    kinds = [
        (b"", sent),
        (b"\0" + behaviour, sent),
        (b"\0" + behaviour + b"\4", sent),
        (b"\0" + behaviour + b"\x0c", 3 * BEFORE + sent),
        (b"\2" + behaviour + b"\0\0" + stops, BEFORE + sent),
    ]
    return [choices.ljust(CHOICES, b"\0") + data for choices, data in kinds]
