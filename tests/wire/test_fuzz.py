"""The target of the fuzzer, without a fuzzer: wire cases, findings and mutations pass; known faults are found."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fuzz.target import BEHAVIOURS, CHOICES, REAL, SMALL, App, Behaviour, Plan, check, converse, seeds
from paths import TESTS
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.core.settings import Settings
from tinysvc.http import Connection, TransportEvents
from tinysvc.wire.connection import ServerConnection
from tinysvc.wire.inbox import Inbox
from wire_cases import CASES, FRAGMENTS, LIMITS, Case, edited, for_each_case, show

FOUND = sorted((TESTS / "fuzz" / "found" / "shell").glob("*.bin"))


NUMBERS = {case.name: number for number, case in enumerate(CASES)}


@for_each_case
def test_wire_cases(case: Case) -> None:
    for data in seeds(case.sent, NUMBERS[case.name]):
        check(data)


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_found_inputs(file: Path) -> None:
    check(file.read_bytes())


@pytest.mark.parametrize("seed", range(len(BEHAVIOURS)))
def test_mutations(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        sent = b"".join(case.sent for case in chance.choices(CASES, k=chance.randrange(1, 4)))
        edits = [(chance.randrange(2000), chance.randrange(9), chance.choice(FRAGMENTS)) for _ in range(3)]
        check(chance.randbytes(CHOICES) + edited(sent, edits[: chance.randrange(4)]))


def test_short_inputs() -> None:
    """Also inputs that are too short for the bytes that choose."""
    for data in (b"", b"\0", bytes(CHOICES), b"\xff" * CHOICES, b"\xff" * 100):
        check(data)


# The model


async def shows(app: App, request: Request, number: int) -> Response:
    return await show(request)


@for_each_case
def test_model_responds_like_real_sockets(case: Case) -> None:
    for scale in (REAL, SMALL):
        answers, _ = converse(Plan(Settings(**LIMITS), [Behaviour(shows)], scale), case.sent, [])
        assert [answer.status for answer in answers] == case.statuses, scale


GOOD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
BYTEWISE = b"\0\0\0\0\4".ljust(CHOICES, b"\0")
BEHIND_A_WAIT = b"\0\x0f".ljust(CHOICES, b"\0")  # the first handler waits until all has come


def lose_single_bytes(self: Inbox, data: bytes) -> None:
    if len(data) > 1:
        RECEIVE(self, data)


def hold_all(self: Inbox, data: bytes) -> None:
    self.held.append(data)


async def say_too_much(self: Connection) -> None:
    self.transport.write(b"x")


def lose_memory(self: Connection) -> None:
    self.server.body_memory += 1
    CLOSE(self)


def fail(*args: Any) -> None:
    raise KeyError("planted")


def fail_at_last(self: TransportEvents, exc: Exception | None) -> None:
    LOST(self, exc)
    fail()


RECEIVE, CLOSE, LOST = Inbox.put, Connection.close, TransportEvents.connection_lost


def test_oracle_accepts_good_responses() -> None:
    check(BYTEWISE + GOOD * 60)
    check(BEHIND_A_WAIT + GOOD * 60 + b"bad\r\n\r\n")


@pytest.mark.parametrize(
    ("place", "name", "fault", "choices", "words"),
    [
        (Inbox, "put", lose_single_bytes, BYTEWISE, "cut did matter"),
        (Inbox, "hold", hold_all, BEHIND_A_WAIT, "more is held"),
        (TransportEvents, "eof_received", lambda self: True, BYTEWISE, "does not end"),
        (Connection, "_linger", say_too_much, BEHIND_A_WAIT, "b'x' came behind the last answer"),
        (Connection, "close", lose_memory, BYTEWISE, "memory was not given back"),
        (ServerConnection, "next_request", fail, BYTEWISE, "this is a bug in tinysvc"),
        (Connection, "_refuse", fail, BEHIND_A_WAIT, "escaped"),
        (TransportEvents, "connection_lost", fail_at_last, BYTEWISE, "planted"),
    ],
    ids=["cut", "held", "hang", "answer", "memory", "log", "exception", "callback"],
)
def test_oracle_finds_faults(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, fault: Any, choices: bytes, words: str
) -> None:
    monkeypatch.setattr(place, name, fault)
    with pytest.raises(AssertionError, match=words):
        check(choices + GOOD * 60 + b"bad\r\n\r\n")
