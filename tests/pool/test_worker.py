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
    Call,
    CallStream,
    Chunk,
    JobError,
    Pickled,
    Ready,
    Result,
    RunProgram,
    StartFailed,
    StreamBegin,
    StreamEnd,
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
    assert server.receive() == (Ready(), b"")
    server.send(Call(1, 0, []), call(jobs.add, 1, 2))
    head, body = server.receive()
    assert head == Pickled(1, [])
    assert pickle.loads(body) == 3


def test_call_stream_sends_chunks(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(CallStream(5, 0, []), call(jobs.count, 2))
    heads = [server.receive()[0] for _ in range(4)]
    assert heads == [StreamBegin(5, None), Chunk(5), Chunk(5), StreamEnd(5)]


def test_program_job_returns_its_reply(start: Callable[..., ServerEnd]) -> None:
    server = start(jobs.upper_program)
    server.receive()
    server.send(RunProgram(1, 0, "meta"), b"abc")
    assert server.receive() == (Result(1, ["meta"]), b"ABC")


def test_pool_without_program_refuses_program_jobs(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(RunProgram(1, 0, "meta"), b"abc")
    head, _ = server.receive()
    assert isinstance(head, JobError)
    assert head.number == 1
    assert "use run() or submit()" in head.error.message


def test_error_is_sent_as_text_and_pickle(
    start: Callable[..., ServerEnd],
) -> None:
    server = start(function_program)
    server.receive()
    cases = [(jobs.raise_value_error, "ValueError", True), (jobs.raise_unpicklable, "jobs.Unpicklable", False)]
    for function, name, is_exact in cases:
        server.send(Call(1, 0, []), call(function))
        head, body = server.receive()
        error, exact = pickle.loads(body)
        assert (head.error.type_name, type(error).__name__, exact) == (name, name.removeprefix("jobs."), is_exact)
        assert not head.poisoned
        assert f"in {function.__name__}" in head.error.traceback


def test_memory_error_marks_the_worker_as_poisoned(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(Call(1, 0, []), call(jobs.raise_memory_error))
    head, _ = server.receive()
    assert head.poisoned


def test_failing_program_is_reported_with_its_traceback(start: Callable[..., ServerEnd]) -> None:
    server = start(jobs.failing_program)
    head, _ = server.receive()
    assert isinstance(head, StartFailed)
    assert "in failing_program" in head.traceback
    assert "the resource cannot be opened" in head.traceback


def test_too_big_result_fails_its_job_only(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program)
    server.receive()
    server.send(Call(1, 0, []), call(bytes, 1_000_001))
    head, _ = server.receive()
    assert head.error.type_name == "ValueError"
    assert "max_result_size is 1000000" in head.error.message
    server.send(Call(2, 0, []), call(jobs.add, 1, 2))
    assert server.receive()[0] == Pickled(2, [])


def test_option_measures_the_memory(start: Callable[..., ServerEnd]) -> None:
    server = start(function_program, OPTIONS._replace(measures_memory=True))
    server.receive()
    server.send(Call(1, 0, []), call(jobs.add, 1, 2))
    assert server.receive()[0].memory > 1_000_000
