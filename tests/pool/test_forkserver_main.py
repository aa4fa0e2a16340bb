"""forkserver_main.py: commands of the server, without a server."""

from __future__ import annotations

import os
import socket

import pytest

from tinysvc.pool.forkserver_main import ForkserverLoop
from tinysvc.pool.frames import (
    COMMAND,
    FORK,
    FORK_DESCRIPTORS,
    FRAME,
    WorkerEnd,
    decode_from_forkserver,
)
from tinysvc.pool.program import function_program
from worker_ends import OPTIONS


def test_failed_fork_is_reported_and_the_forkserver_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at RLIMIT_NPROC, or without free memory."""

    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        forkserver = ForkserverLoop(theirs, function_program, OPTIONS)
        with forkserver.wakeup, forkserver._wakeup_writer, monkeypatch.context() as broken:
            broken.setattr(os, "fork", no_fork)
            descriptors = [os.dup(0) for _ in range(FORK_DESCRIPTORS)]
            socket.send_fds(ours, [COMMAND.pack(FORK, 7)], descriptors)
            assert forkserver.take_command_or_wait()
            for descriptor in descriptors:
                os.close(descriptor)
        data = ours.recv(4096)
    head_length, _ = FRAME.unpack_from(data)
    end = decode_from_forkserver(data[FRAME.size : FRAME.size + head_length])
    assert isinstance(end, WorkerEnd)
    assert (end.number, end.exit_code) == (7, None)
    assert "cannot start: fork failed: Resource temporarily unavailable; raise the limit of processes" in end.text
    assert not forkserver.pids
