"""worker.py: a worker's loop over a socketpair, in a thread of the test."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import jobs
from tinysvc.pool.arena import BIG, Arena
from tinysvc.pool.channel import Channel
from tinysvc.pool.descendants import new_mark
from tinysvc.pool.worker import (
    CALL,
    CALL_STREAM,
    CHUNK,
    COMMAND,
    END,
    ERROR,
    FAILED,
    FORK,
    FORK_DESCRIPTORS,
    FRAME,
    HANDLE,
    PICKLED,
    READY,
    RESULT,
    STREAM,
    Forkserver,
    Link,
    Program,
    WorkerOptions,
    decode,
    frame,
    pack,
    plain_program,
    unpack,
    work,
)

OPTIONS = WorkerOptions(log_level=30, max_result_size=1_000_000, measures_memory=False, memory_limit=0, mark=new_mark())


class Server:
    """The server's end, without a loop."""

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.heads: list[Any] = []
        self.bodies: list[bytes] = []
        self.channel = Channel(ours, self.on_frame, lambda why: None, 1_000_000)
        self.channel.connection_made(unittest.mock.Mock(is_closing=lambda: False))

    def on_frame(self, head: Any, body: bytes) -> None:
        self.heads.append(head)
        self.bodies.append(body)

    def receive(self) -> tuple[Any, bytes]:
        while not self.heads:
            data = self.socket.recv(4096)
            assert data
            self.channel.data_received(data)
        return self.heads.pop(0), self.bodies.pop(0)

    def send(self, number: int, kind: int, meta: Any, body: bytes) -> None:
        self.socket.sendall(frame((number, kind, meta, 0), len(body)) + body)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    ours, theirs = socket.socketpair()
    threads: list[threading.Thread] = []

    def run(program: Program, options: WorkerOptions = OPTIONS) -> Server:
        threads.append(threading.Thread(target=work, args=(Link(theirs, None, options), program)))
        threads[0].start()
        return Server(ours)

    yield run
    ours.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    theirs.close()


def call(function: Callable[..., Any], *arguments: Any) -> bytes:
    return pickle.dumps((function, arguments, {}))


def test_a_call(start: Callable[..., Server]) -> None:
    server = start(plain_program)
    assert server.receive() == ([0, READY, None, 0, 0], b"")
    server.send(1, CALL, [], call(jobs.add, 1, 2))
    head, body = server.receive()
    assert head == [1, PICKLED, [], 0, 0]
    assert pickle.loads(body) == 3


def test_a_stream_of_calls(start: Callable[..., Server]) -> None:
    server = start(plain_program)
    server.receive()
    server.send(5, CALL_STREAM, [], call(jobs.count, 2))
    heads = [server.receive()[0][:3] for _ in range(4)]
    assert heads == [[5, STREAM, None], [5, CHUNK, None], [5, CHUNK, None], [5, END, None]]


def test_a_program(start: Callable[..., Server]) -> None:
    server = start(jobs.upper_program)
    server.receive()
    server.send(1, HANDLE, "meta", b"abc")
    assert server.receive() == ([1, RESULT, ["meta"], 0, 0], b"ABC")


def test_a_plain_pool_serves_no_frames(start: Callable[..., Server]) -> None:
    server = start(plain_program)
    server.receive()
    server.send(1, HANDLE, "meta", b"abc")
    head, _ = server.receive()
    assert head[:2] == [1, ERROR]
    assert "use run() or submit()" in head[2][1]


def test_an_error_travels_as_text_and_as_a_pickle_that_says_whether_it_is_exact(
    start: Callable[..., Server],
) -> None:
    server = start(plain_program)
    server.receive()
    cases = [(jobs.raise_value_error, "ValueError", True), (jobs.raise_unpicklable, "jobs.Unpicklable", False)]
    for function, name, is_exact in cases:
        server.send(1, CALL, [], call(function))
        head, body = server.receive()
        type_name, _, traceback, leaving = head[2]
        error, exact = pickle.loads(body)
        assert (type_name, type(error).__name__, exact, leaving) == (name, name.removeprefix("jobs."), is_exact, False)
        assert f"in {function.__name__}" in traceback


def test_a_worker_leaves_after_a_memory_error(start: Callable[..., Server]) -> None:
    server = start(plain_program)
    server.receive()
    server.send(1, CALL, [], call(jobs.raise_memory_error))
    head, _ = server.receive()
    assert head[2][3] is True


def test_a_program_that_fails_to_open(start: Callable[..., Server]) -> None:
    server = start(jobs.failing_program)
    head, _ = server.receive()
    assert head[:2] == [0, FAILED]
    assert "in failing_program" in head[2]
    assert "the resource cannot be opened" in head[2]


@pytest.mark.parametrize("size", [0, 100, 65535, 65536, 300_000])
def test_frames_of_any_size(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server, link = Server(ours), Link(theirs, None, OPTIONS)
        sender = threading.Thread(target=server.send, args=(1, 2, "meta", b"x" * size))
        sender.start()
        assert link.receive() == (1, 2, "meta", b"x" * size)
        sender.join()
        sender = threading.Thread(target=link.send, args=(1, RESULT, "meta", b"x" * size))
        sender.start()
        assert server.receive() == ([1, RESULT, "meta", 0, 0], b"x" * size)
        sender.join()


def test_a_channel_that_ends_in_a_frame() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\x00\x00\x00\x09" + b"\x00" * 8 + b"half")
        assert Link(theirs, None, OPTIONS).receive() is None


def test_a_body_and_a_big_result_travel_in_arenas() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server, link = Server(ours), Link(theirs, None, OPTIONS)
        body, result = Arena(), Arena()
        body.write(b"x" * BIG)
        socket.send_fds(ours, [frame((1, HANDLE, None, body.size))], [body.descriptor, result.descriptor])
        body.close()
        received = link.receive()
        assert received is not None
        assert received[3] == b"x" * BIG
        link.send_result(1, RESULT, None, received[3], b"y")
        assert server.receive() == ([1, RESULT, None, BIG + 1, 0], b"")
        result.size = BIG + 1
        assert bytes(result.view()) == b"x" * BIG + b"y"
        assert link.arena is None  # it is used up
        result.close()


def test_a_result_beyond_the_limit_is_an_error_of_its_job(start: Callable[..., Server]) -> None:
    server = start(plain_program)
    server.receive()
    server.send(1, CALL, [], call(bytes, 1_000_001))
    head, _ = server.receive()
    assert head[2][0] == "ValueError"
    assert "max_result_size is 1000000" in head[2][1]
    server.send(2, CALL, [], call(jobs.add, 1, 2))
    assert server.receive()[0][:2] == [2, PICKLED]


def test_memory_is_measured_where_the_pool_asks_for_it(start: Callable[..., Server]) -> None:
    server = start(plain_program, OPTIONS._replace(measures_memory=True))
    server.receive()
    server.send(1, CALL, [], call(jobs.add, 1, 2))
    assert server.receive()[0][4] > 1_000_000


@pytest.mark.parametrize("sizes", [[], [10], [BIG], [BIG, 10, 2 * BIG]])
def test_big_buffers_are_not_pickled(sizes: list[int]) -> None:
    arrays = [numpy.arange(size, dtype="u1") for size in sizes]
    lengths, pieces = pack({"arrays": arrays})
    assert lengths == [size for size in sizes if size >= BIG]
    assert len(pieces[-1]) < 5000
    unpacked = unpack(lengths, memoryview(b"".join(pieces)))
    assert all(numpy.array_equal(a, b) for a, b in zip(unpacked["arrays"], arrays, strict=True))


def test_a_fork_that_fails_is_told_and_the_forkserver_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under RLIMIT_NPROC, or where memory is short."""

    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        forkserver = Forkserver(theirs, plain_program, OPTIONS)
        with forkserver.wakeup, forkserver._wakeup_writer, monkeypatch.context() as broken:
            broken.setattr(os, "fork", no_fork)
            descriptors = [os.dup(0) for _ in range(FORK_DESCRIPTORS)]
            socket.send_fds(ours, [COMMAND.pack(FORK, 7)], descriptors)
            assert forkserver.take_command_or_wait()
            for descriptor in descriptors:
                os.close(descriptor)
        data = ours.recv(4096)
    head_length, _ = FRAME.unpack_from(data)
    event, number, text = decode(data[FRAME.size : FRAME.size + head_length])
    assert (event, number) == (FAILED, 7)
    assert "cannot start: fork failed: Resource temporarily unavailable; raise the limit of processes" in text
    assert not forkserver.pids


def test_a_body_that_finds_no_free_descriptor_fails_its_job_alone() -> None:
    """The kernel then drops the descriptor of the body: nothing of it arrives."""
    ours, theirs = socket.socketpair()
    with ours:
        link = Link(theirs, None, OPTIONS)
        ours.sendall(frame((7, HANDLE, None, BIG)))
        assert link.receive() is None
        theirs.close()
        data = b"".join(iter(lambda: ours.recv(4096), b""))
    number, kind, (name, text, _, leaving), *_ = decode(data[FRAME.size :])
    assert (number, kind, name, leaving) == (7, ERROR, "OSError", True)
    assert "cannot receive the job's body" in text
