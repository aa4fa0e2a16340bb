"""worker.py: a worker's loop over a socketpair, in a thread of the test."""

from __future__ import annotations

import pickle
import socket
import threading
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import jobs
from tinysvc.processes import Channel
from tinysvc.worker import (
    CALL,
    CALL_STREAM,
    CHUNK,
    END,
    ERROR,
    FAILED,
    HANDLE,
    PICKLED,
    READY,
    RESULT,
    STREAM,
    Program,
    plain_program,
    receive,
    send,
    work,
)


@pytest.fixture
def start() -> Iterator[Callable[[Program], socket.socket]]:
    ours, theirs = socket.socketpair()
    threads: list[threading.Thread] = []

    def run(program: Program) -> socket.socket:
        threads.append(threading.Thread(target=work, args=(theirs, program)))
        threads[0].start()
        return ours

    yield run
    ours.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    theirs.close()


def call(function: Callable[..., Any], *arguments: Any) -> bytes:
    return pickle.dumps((function, arguments, {}))


def test_a_call(start: Callable[[Program], socket.socket]) -> None:
    channel = start(plain_program)
    assert receive(channel) == ([0, READY, None], b"")
    send(channel, 1, CALL, None, call(jobs.add, 1, 2))
    head, body = receive(channel) or (None, b"")
    assert head == [1, PICKLED, None]
    assert pickle.loads(body) == 3


def test_a_stream_of_calls(start: Callable[[Program], socket.socket]) -> None:
    channel = start(plain_program)
    receive(channel)
    send(channel, 5, CALL_STREAM, None, call(jobs.count, 2))
    heads: list[Any] = []
    frames = Channel(lambda head, body: heads.append(head), lambda why: None, 1000)
    frames.connection_made(unittest.mock.Mock(is_closing=lambda: False))
    while len(heads) < 4:
        frames.data_received(channel.recv(4096))
    assert heads == [[5, STREAM, None], [5, CHUNK, None], [5, CHUNK, None], [5, END, None]]


def test_a_program(start: Callable[[Program], socket.socket]) -> None:
    channel = start(jobs.upper_program)
    receive(channel)
    send(channel, 1, HANDLE, "meta", b"abc")
    assert receive(channel) == ([1, RESULT, ["meta"]], b"ABC")


def test_a_plain_pool_serves_no_frames(start: Callable[[Program], socket.socket]) -> None:
    channel = start(plain_program)
    receive(channel)
    send(channel, 1, HANDLE, "meta", b"abc")
    head, _ = receive(channel) or ([], b"")
    assert head[:2] == [1, ERROR]
    assert "use run() or submit()" in head[2][1]


def test_an_error_travels_as_text_and_as_a_pickle_only_if_it_survives(
    start: Callable[[Program], socket.socket],
) -> None:
    channel = start(plain_program)
    receive(channel)
    for function, name, pickled in [(jobs.raise_value_error, "ValueError", True), (jobs.raise_picky, "jobs.Picky", 0)]:
        send(channel, 1, CALL, None, call(function))
        head, body = receive(channel) or ([], b"")
        type_name, _, traceback, leaving = head[2]
        assert (type_name, bool(body), leaving) == (name, bool(pickled), False)
        assert f"in {function.__name__}" in traceback


def test_a_worker_leaves_after_a_memory_error(start: Callable[[Program], socket.socket]) -> None:
    channel = start(plain_program)
    receive(channel)
    send(channel, 1, CALL, None, call(jobs.raise_memory_error))
    head, _ = receive(channel) or ([], b"")
    assert head[2][3] is True


def test_a_program_that_fails_to_open(start: Callable[[Program], socket.socket]) -> None:
    channel = start(jobs.failing_program)
    head, _ = receive(channel) or ([], b"")
    assert head[:2] == [0, FAILED]
    assert "in failing_program" in head[2]
    assert "the resource cannot be opened" in head[2]


@pytest.mark.parametrize("size", [0, 100, 65535, 65536, 300_000])
def test_frames_of_any_size(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=send, args=(ours, 1, 2, "meta", b"x" * size))
        sender.start()
        assert receive(theirs) == ([1, 2, "meta"], b"x" * size)
        sender.join()


def test_a_channel_that_ends_in_a_frame() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\x00\x00\x00\x09" + b"\x00" * 8 + b"half")
        assert receive(theirs) is None
