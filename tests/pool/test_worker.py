"""worker.py: a worker's loop over a socketpair, in a thread of the test."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import jobs
from tinysvc.pool.frames import (
    CALL,
    CALL_STREAM,
    CHUNK,
    END,
    ERROR,
    FAILED,
    PICKLED,
    READY,
    RESULT,
    RUN_PROGRAM,
    STREAM,
)
from tinysvc.pool.program import Program, WorkerOptions, function_program
from tinysvc.pool.worker import work
from tinysvc.pool.worker_channel import WorkerChannel
from worker_ends import OPTIONS, ServerEnd


@pytest.fixture
def start() -> Iterator[Callable[..., ServerEnd]]:
    ours, theirs = socket.socketpair()
    threads: list[threading.Thread] = []

    def run(program: Program, options: WorkerOptions = OPTIONS) -> ServerEnd:
        threads.append(threading.Thread(target=work, args=(WorkerChannel(theirs, None, options), program)))
        threads[0].start()
        return ServerEnd(ours)

    yield run
    ours.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    theirs.close()


def call(function: Callable[..., Any], *arguments: Any) -> bytes:
    return pickle.dumps((function, arguments, {}))


def test_call_returns_a_pickle(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    assert server.receive() == ([0, READY, None, 0, 0], b"")
    server.send(1, CALL, [], call(jobs.add, 1, 2))
    head, body = server.receive()
    assert head == [1, PICKLED, [], 0, 0]
    assert pickle.loads(body) == 3


def test_call_stream_sends_chunks(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(5, CALL_STREAM, [], call(jobs.count, 2))
    heads = [server.receive()[0][:3] for _ in range(4)]
    assert heads == [[5, STREAM, None], [5, CHUNK, None], [5, CHUNK, None], [5, END, None]]


def test_program_job_returns_its_reply(start: Callable[..., ServerEnd]) -> None:
    server = start(jobs.upper_program)
    server.receive()
    server.send(1, RUN_PROGRAM, "meta", b"abc")
    assert server.receive() == ([1, RESULT, ["meta"], 0, 0], b"ABC")


def test_pool_without_program_refuses_program_jobs(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(1, RUN_PROGRAM, "meta", b"abc")
    head, _ = server.receive()
    assert head[:2] == [1, ERROR]
    assert "use run() or submit()" in head[2][1]


def test_error_is_sent_as_text_and_pickle(
    start: Callable[..., ServerEnd],
) -> None:
    server = start(function_program)
    server.receive()
    cases = [(jobs.raise_value_error, "ValueError", True), (jobs.raise_unpicklable, "jobs.Unpicklable", False)]
    for function, name, is_exact in cases:
        server.send(1, CALL, [], call(function))
        head, body = server.receive()
        type_name, _, traceback, poisoned = head[2]
        error, exact = pickle.loads(body)
        assert (type_name, type(error).__name__, exact, poisoned) == (name, name.removeprefix("jobs."), is_exact, False)
        assert f"in {function.__name__}" in traceback


def test_memory_error_marks_the_worker_as_poisoned(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(1, CALL, [], call(jobs.raise_memory_error))
    head, _ = server.receive()
    assert head[2][3] is True


def test_failing_program_is_reported_with_its_traceback(start: Callable[..., ServerEnd]) -> None:
    server = start(jobs.failing_program)
    head, _ = server.receive()
    assert head[:2] == [0, FAILED]
    assert "in failing_program" in head[2]
    assert "the resource cannot be opened" in head[2]


def test_too_big_result_fails_its_job_only(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(1, CALL, [], call(bytes, 1_000_001))
    head, _ = server.receive()
    assert head[2][0] == "ValueError"
    assert "max_result_size is 1000000" in head[2][1]
    server.send(2, CALL, [], call(jobs.add, 1, 2))
    assert server.receive()[0][:2] == [2, PICKLED]


def test_option_measures_the_memory(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program, OPTIONS._replace(measures_memory=True))
    server.receive()
    server.send(1, CALL, [], call(jobs.add, 1, 2))
    assert server.receive()[0][4] > 1_000_000
