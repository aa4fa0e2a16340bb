"""processes.py: the channel's frames however they are cut, and a forkserver that does not start."""

from __future__ import annotations

import asyncio
import os
import unittest.mock
from typing import Any

import pytest

import jobs
from tinysvc.descendants import new_mark
from tinysvc.errors import WorkerStartError
from tinysvc.processes import Channel, Forkserver
from tinysvc.worker import FRAME, WorkerOptions, frame

OPTIONS = WorkerOptions(30, 1 << 20, False, 0, new_mark())


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
    made = Channel(unittest.mock.Mock(), lambda head, body: frames.append((head, body)), ends.append, limit)
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport, frames, ends


@pytest.mark.parametrize("size", [1, 2, 7, 12, 13, 64, 10_000])
def test_frames_arrive_whole_however_they_are_cut(size: int) -> None:
    sent = [([1, 0, None], b""), ([2, 1, "meta"], b"x" * 100), ([3, 2, {"a": 1}], b"y" * 999), ([4, 0, None], b"")]
    data = b"".join(frame(head, len(body)) + body for head, body in sent)
    made, _, frames, _ = channel()
    for start in range(0, len(data), size):
        made.data_received(data[start : start + size])
    assert frames == sent


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (FRAME.pack(10, 1 << 40), "max_result_size is 10000"),
        (FRAME.pack(0xFFFFFFFF, 0), "max_result_size is 10000"),
        (FRAME.pack(1, 0) + b"\xc1", "not MessagePack"),
    ],
)
def test_what_is_no_frame_ends_the_channel(data: bytes, why: str) -> None:
    made, transport, frames, ends = channel()
    made.data_received(data)
    made.data_received(frame([1, 0, None]))  # what follows is not heard
    assert transport.closed
    assert not frames
    made.connection_lost(None)
    assert why in ends[0]


def test_a_channel_closed_before_it_is_connected() -> None:
    made = Channel(unittest.mock.Mock(), lambda head, body: None, lambda why: None, 1)
    made.close()
    transport = Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    assert transport.closed


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_a_program_that_cannot_be_loaded_is_told_with_its_traceback() -> None:
    forkserver = Forkserver(jobs.Bomb(), OPTIONS, 1, lambda *_: None, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(WorkerStartError, match="cannot be loaded") as raised:
        await forkserver.start()
    assert "RuntimeError: unpickled" in raised.value.traceback


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    forkserver = Forkserver(jobs.plain_slow_program, OPTIONS, 1, lambda *_: None, lambda: None)
    start = asyncio.create_task(forkserver.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_blas_threads_are_limited_unless_the_user_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinysvc import ProcessPoolExecutor

    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    async with ProcessPoolExecutor(os.cpu_count()) as pool:
        assert await pool.run(os.getenv, "OMP_NUM_THREADS") == "1"
        assert await pool.run(os.getenv, "MKL_NUM_THREADS") == "7"
