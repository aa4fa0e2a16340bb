"""questions.py and worker.py: a job asks the server over its channel; a broken question costs only its worker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tinysvc.pool.frames import FRAME, Answer, Question, RunProgram, encode, frame, worker_decoder
from tinysvc.pool.program import WorkerOptions
from tinysvc.pool.questions import Asker
from tinysvc.pool.worker_channel import WorkerChannel

OPTIONS = WorkerOptions(log_level=0, max_result_size=100_000, measures_memory=False, memory_limit=0, mark=0)


class Server:
    """The server's end of a channel, in plain sockets."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.channel = WorkerChannel(theirs, None, OPTIONS)
        self.theirs = theirs

    def read(self) -> tuple[Any, bytes]:
        head_length, body_length = FRAME.unpack(self.exactly(FRAME.size))
        return worker_decoder(Any)(self.exactly(head_length)), self.exactly(body_length)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.socket.recv(size - len(data))
        return data

    def give_job(self, number: int) -> None:
        self.socket.sendall(frame(RunProgram(number, 0, None)))
        assert self.channel.receive() is not None


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.socket.close()
    made.theirs.close()


def answered(server: Server, meta: Any, body: bytes, pause: bool = False) -> threading.Thread:
    def answer() -> None:
        question, content = server.read()
        assert question == Question(1, {"a": 1})
        whole = frame(Answer(meta), len(body)) + body + content
        for piece in (whole[:3], whole[3:20], whole[20:]) if pause else (whole,):
            server.socket.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize("pause", [False, True])
def test_question_waits_for_its_answer(server: Server, pause: bool) -> None:
    server.give_job(1)
    asker = Asker(server.channel)
    for body in (b"", b"x" * 80_000):
        thread = answered(server, [1, "two"], body, pause)
        assert asker.ask({"a": 1}, b"") == ([1, "two"], body)
        thread.join()
        assert not server.channel.is_asking
    server.give_job(2)  # the next frame begins where it should


def test_answer_of_the_wrong_type_is_refused(server: Server) -> None:
    server.give_job(1)
    thread = answered(server, "text", b"")
    with pytest.raises(msgspec.ValidationError):
        Asker(server.channel, int).ask({"a": 1}, b"")
    thread.join()


def test_body_over_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    server.give_job(1)
    with pytest.raises(ValueError, match="has 100001 bytes; max_result_size is 100000"):
        Asker(server.channel).ask(None, b"x" * 100_001)
    assert not server.channel.is_asking


def test_question_that_cannot_be_encoded_leaves_the_channel_as_it_is(server: Server) -> None:
    server.give_job(1)
    asker = Asker(server.channel)
    with pytest.raises(OverflowError):
        asker.ask({"a": 2**64}, b"")
    thread = answered(server, 7, b"")
    assert asker.ask({"a": 1}, b"") == (7, b"")
    thread.join()


def test_nothing_is_asked_between_jobs(server: Server) -> None:
    with pytest.raises(RuntimeError, match="the job has ended"):
        Asker(server.channel).ask(None, b"")


def test_closed_channel_is_an_error_and_leaves_the_question_open(server: Server) -> None:
    server.give_job(1)
    server.socket.shutdown(socket.SHUT_WR)
    asker = Asker(server.channel)
    with pytest.raises(ConnectionResetError):
        asker.ask(None, b"")
    assert server.channel.is_asking
    with pytest.raises(RuntimeError, match="an earlier question was interrupted"):
        asker.ask(None, b"")


def test_head_is_one_of_the_known_ones() -> None:
    with pytest.raises(msgspec.ValidationError):
        worker_decoder(Any, int)(encode(Question(1, "text")))
