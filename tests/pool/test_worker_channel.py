"""worker_channel.py: frames of any size, arenas, and a body that cannot be received."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from tinysvc.pool.arena import BIG, Arena
from tinysvc.pool.frames import (
    FRAME,
    JobError,
    Result,
    RunProgram,
    frame,
    worker_decoder,
)
from tinysvc.pool.worker_channel import WorkerChannel
from worker_ends import OPTIONS, ServerEnd


@pytest.mark.parametrize("size", [0, 100, 65535, 65536, 300_000])
def test_frames_of_any_size(size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server, channel = ServerEnd(ours), WorkerChannel(theirs, None, OPTIONS)
        sender = threading.Thread(target=server.send, args=(RunProgram(1, 0, "meta"), b"x" * size))
        sender.start()
        assert channel.receive() == (RunProgram(1, 0, "meta"), b"x" * size)
        sender.join()
        sender = threading.Thread(target=channel.send_end, args=(Result(1, "meta"), b"x" * size))
        sender.start()
        assert server.receive() == (Result(1, "meta"), b"x" * size)
        sender.join()


def test_channel_that_ends_within_a_frame_ends() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(b"\x00\x00\x00\x09" + b"\x00" * 8 + b"half")
        assert WorkerChannel(theirs, None, OPTIONS).receive() is None


def test_big_body_and_big_result_use_arenas() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server, channel = ServerEnd(ours), WorkerChannel(theirs, None, OPTIONS)
        body, result = Arena(), Arena()
        body.write(b"x" * BIG)
        socket.send_fds(ours, [frame(RunProgram(1, body.size, None))], [body.descriptor, result.descriptor])
        body.close()
        received = channel.receive()
        assert received is not None
        assert received[1] == b"x" * BIG
        channel.send_result(Result(1, None), received[1], b"y")
        assert server.receive() == (Result(1, None, BIG + 1), b"")
        result.size = BIG + 1
        assert bytes(result.view()) == b"x" * BIG + b"y"
        assert channel.arena is None  # each arena is used once
        result.close()


def test_body_without_free_descriptor_fails_its_job_only() -> None:
    """The kernel drops the descriptor of the body, which does not arrive."""
    ours, theirs = socket.socketpair()
    with ours:
        channel = WorkerChannel(theirs, None, OPTIONS)
        ours.sendall(frame(RunProgram(7, BIG, None)))
        assert channel.receive() is None
        theirs.close()
        data = b"".join(iter(lambda: ours.recv(4096), b""))
    head = worker_decoder(Any)(data[FRAME.size :])
    assert isinstance(head, JobError)
    assert (head.number, head.error.type_name, head.poisoned) == (7, "OSError", True)
    assert "cannot receive the job's body" in head.error.message
