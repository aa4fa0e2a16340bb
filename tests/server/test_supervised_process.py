"""supervised_process.py: the pauses before a process is replaced."""

from __future__ import annotations

import socket

from tinysvc.server.supervised_process import HEALTHY, LONGEST_PAUSE, ServerProcess


def test_pauses_grow_with_each_death() -> None:
    process = ServerProcess()
    process.started(1, socket.socket())
    process.link.close()
    assert [process.pause() for _ in range(9)] == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE, LONGEST_PAUSE]
    process.since -= HEALTHY
    assert process.pause() == 0
