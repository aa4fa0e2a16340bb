"""The fuzzer's targets without I/O, without a fuzzer: cases, findings and mutations pass; planted faults are found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import response_cases
from fuzz import client_target, server_target
from fuzz.server_target import BEHIND, CHOICES
from paths import TESTS
from tinysvc.core.errors import ProtocolError
from tinysvc.core.responses import Response
from tinysvc.wire import connection as wire_connection
from tinysvc.wire.client_connection import ClientConnection
from tinysvc.wire.connection import IncomingBody, ServerConnection
from wire_cases import CASES, FRAGMENTS, edited

SENT = {"server": [case.sent for case in CASES], "client": response_cases.ALL}
TARGETS: dict[str, Any] = {"server": server_target, "client": client_target}
FOUND = [
    (side, file)
    for side in TARGETS
    for file in sorted((TESTS / "fuzz" / "found" / side).glob("*.bin"))
]  # fmt: skip


@pytest.mark.parametrize("side", TARGETS)
def test_cases_of_both_sides(side: str) -> None:
    for number, sent in enumerate(SENT[side]):
        for data in TARGETS[side].seeds(sent, number):
            TARGETS[side].check(data)


@pytest.mark.parametrize(("side", "file"), FOUND, ids=[file.stem for _, file in FOUND])
def test_inputs_that_were_found(side: str, file: Path) -> None:
    TARGETS[side].check(file.read_bytes())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("side", TARGETS)
def test_mutations_of_cases(side: str, seed: int) -> None:
    chance, fragments = random.Random(seed), [*FRAGMENTS, *response_cases.FRAGMENTS]
    for _ in range(1000):
        sent = b"".join(chance.choices(SENT[side], k=chance.randrange(1, 4)))[:3000]
        edits = [(chance.randrange(2000), chance.randrange(9), chance.choice(fragments)) for _ in range(3)]
        TARGETS[side].check(chance.randbytes(CHOICES) + edited(sent, edits[: chance.randrange(4)]))


@pytest.mark.parametrize("side", TARGETS)
def test_inputs_that_are_short(side: str) -> None:
    for data in (b"", b"\0", bytes(CHOICES), b"\xff" * CHOICES, b"\xff" * 100):
        TARGETS[side].check(data)


# The oracles

GOOD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
BYTEWISE, STREAMING = (bytes([0x81, answer, answer, answer, 1, 1, 1, 1]) for answer in (0, 2))
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
NEXT, TAKE, PIECE = ServerConnection.next_request, ServerConnection.take_piece, ClientConnection.take_piece


def fail(*args: Any) -> None:
    raise KeyError("planted")


def lose_the_first_byte(self: ServerConnection, data: bytes) -> bytes:
    return TAKE(self, data)[1:]


def keep_the_body(self: ServerConnection) -> Any:
    request = NEXT(self)
    if request is not None and self.requests > 1:
        request.raw_path = "/the-one-before"
    return request


def forget_the_length(self: ClientConnection) -> bytes:
    data = PIECE(self)
    return data + b"x" if len(data) > 1 else data


@pytest.mark.parametrize(
    ("place", "name", "fault", "sent", "words"),
    [
        (ServerConnection, "next_request", keep_the_body, GOOD * 2, "alone"),
        (ServerConnection, "take_piece", lose_the_first_byte, CHUNKED, "cut did matter"),
        (ServerConnection, "_check_beginning", lambda self, head: None, b"G" * 600, "longer than its limits"),
        (ServerConnection, "_close", lambda self: None, GOOD + b"bad\r\n\r\n", "does not close"),
        (ServerConnection, "end_of_stream", lambda self: b"", GOOD, "chunked"),
        (ServerConnection, "next_request", fail, GOOD, "planted"),
        (IncomingBody, "take", fail, CHUNKED, "planted"),
        (wire_connection, "parse_any_request_line", fail, GOOD, "planted"),
    ],
    ids=["mixed up", "lost", "held", "open", "no end", "exception", "exception in a body", "exception in a head"],
)
def test_oracle_of_the_server_finds_faults(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, fault: Callable[..., Any], sent: bytes, words: str
) -> None:
    choices = STREAMING if name == "end_of_stream" else BYTEWISE
    server_target.check(choices + sent)
    monkeypatch.setattr(place, name, fault)
    with pytest.raises((AssertionError, KeyError), match=words):
        server_target.check(choices + sent)


@pytest.mark.parametrize(
    ("name", "fault", "sent", "words"),
    [
        ("take_piece", forget_the_length, CHUNKED_RESPONSE, "cut did matter"),
        ("_check_beginning", lambda self, head: None, b"H" * 1500, "longer than its limits"),
        ("_parsed", fail, RESPONSE, "planted"),
        ("end_exchange", lambda self: True, RESPONSE * 2, "no request has asked for"),
    ],
    ids=["more", "held", "exception", "reused"],
)
def test_oracle_of_the_client_finds_faults(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., Any], sent: bytes, words: str
) -> None:
    choices = bytes([0, 0, 0, 0, 1, 1, 1, 1])
    client_target.check(choices + sent)
    monkeypatch.setattr(ClientConnection, name, fault)
    with pytest.raises((AssertionError, KeyError), match=words):
        client_target.check(choices + sent)


def test_request_behind_a_refusal_is_not_taken() -> None:
    wire = ServerConnection(server_target.SETTINGS[0])
    wire.receive(BEHIND)
    request = wire.next_request()
    assert request is not None
    wire.plain_response(request, Response(b"x"), b"\r\n")
    wire.receive(b"GET /\0 HTTP/1.1\r\n\r\n")
    with pytest.raises(ProtocolError):
        wire.next_request()
    wire.buffer = BEHIND  # the usual head, which is not parsed again
    assert wire.next_request() is None
