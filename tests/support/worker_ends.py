"""The server's end of a worker's channel, without an event loop."""

from __future__ import annotations

import socket
import unittest.mock
from typing import Any

from tinysvc.pool.channel import Channel
from tinysvc.pool.descendants import new_mark
from tinysvc.pool.frames import FromWorker, Head, frame, worker_decoder
from tinysvc.pool.program import WorkerOptions

OPTIONS = WorkerOptions(log_level=30, max_result_size=1_000_000, measures_memory=False, memory_limit=0, mark=new_mark())


class ServerEnd:
    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.heads: list[Any] = []
        self.bodies: list[bytes] = []
        self.channel = Channel(ours, worker_decoder(Any), self.on_frame, lambda error: None, 1_000_000)
        self.channel.connection_made(unittest.mock.Mock(is_closing=lambda: False))

    def on_frame(self, head: FromWorker, body: bytes) -> None:
        self.heads.append(head)
        self.bodies.append(body)

    def receive(self) -> tuple[Any, bytes]:
        while not self.heads:
            data = self.socket.recv(4096)
            assert data
            self.channel.data_received(data)
        return self.heads.pop(0), self.bodies.pop(0)

    def send(self, head: Head, body: bytes) -> None:
        self.socket.sendall(frame(head, len(body)) + body)
