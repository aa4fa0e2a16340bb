"""channel.py: frames in pieces of any size, and invalid frames."""

from __future__ import annotations

import unittest.mock
from typing import Any

import pytest

from tinysvc.pool.channel import Channel
from tinysvc.pool.frames import FRAME, Chunk, LogRecord, Result, StreamEnd, frame, worker_decoder


class Transport:
    """What a Channel needs of a transport."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


def channel(limit: int = 10_000) -> tuple[Channel, Transport, list[tuple[Any, bytes]], list[str]]:
    frames: list[tuple[Any, bytes]] = []
    ends: list[str] = []
    made = Channel(
        unittest.mock.Mock(), worker_decoder(Any), lambda head, body: frames.append((head, body)), ends.append, limit
    )
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport, frames, ends


@pytest.mark.parametrize("size", [1, 2, 7, 12, 13, 64, 10_000])
def test_frames_are_joined_from_pieces_of_any_size(size: int) -> None:
    sent: list[tuple[Any, bytes]] = [
        (Chunk(1), b""),
        (Result(2, "meta"), b"x" * 100),
        (LogRecord({"a": 1}), b"y" * 999),
        (StreamEnd(4), b""),
    ]
    data = b"".join(frame(head, len(body)) + body for head, body in sent)
    made, _, frames, _ = channel()
    for start in range(0, len(data), size):
        made.data_received(data[start : start + size])
    assert frames == sent


WRONG_HEADS: list[Any] = [
    None,
    {},
    [],
    [99, 1],
    ["2", 1, None, 0, 0],
    [2, 1],
    [2, "1", None, 0, 0],
    [2, 1, None, "much", 0],
    [2, 1, None, 0, 0, "more"],
    [3, 1, ["a"], 0, 0],
    [4, 1, ["ValueError", "message"], False, 0],
    [4, 1, ["ValueError", "message", "traceback", "more"], False, 0],
]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (FRAME.pack(10, 1 << 40), "max_result_size is 10000"),
        (FRAME.pack(0xFFFFFFFF, 0), "max_result_size is 10000"),
        (FRAME.pack(1, 0) + b"\xc1", "not MessagePack"),
        *((frame(head), "sent a frame with a head of the wrong form: ") for head in WRONG_HEADS),
    ],
)
def test_invalid_frame_closes_the_channel(data: bytes, error: str) -> None:
    made, transport, frames, ends = channel()
    made.data_received(data)
    made.data_received(frame(Chunk(1)))  # later frames are discarded
    assert transport.closed
    assert not frames
    made.connection_lost(None)
    assert error in ends[0]


def test_channel_may_be_closed_before_it_is_connected() -> None:
    made = Channel(unittest.mock.Mock(), worker_decoder(Any), lambda head, body: None, lambda error: None, 1)
    made.close()
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    assert transport.closed
