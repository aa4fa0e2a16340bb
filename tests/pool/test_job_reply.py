"""job_reply.py: streams with back-pressure, and results of function calls."""

from __future__ import annotations

import asyncio
import pickle
import unittest.mock
from collections.abc import Callable

import pytest

from tinysvc.core.errors import RemoteError
from tinysvc.pool.job_reply import STREAM_HIGH_WATER, JobReply, JobStream, unpickled


@pytest.mark.asyncio
async def test_source_is_paused_while_the_reader_is_behind() -> None:
    source = unittest.mock.Mock()
    stream = JobStream(source, lambda: None)
    for _ in range(3):
        stream.feed(b"x" * (STREAM_HIGH_WATER // 2 + 1))
    source.pause_reading.assert_called_once()
    await anext(stream)
    source.resume_reading.assert_not_called()
    await anext(stream)
    await anext(stream)
    source.resume_reading.assert_called_once()


@pytest.mark.asyncio
async def test_reader_gets_the_pieces_and_then_the_error() -> None:
    stream = JobStream(unittest.mock.Mock(), lambda: None)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.feed(b"piece")
    stream.end(ValueError("half-way"))
    assert await first == b"piece"
    with pytest.raises(ValueError, match="half-way"):
        await anext(stream)


@pytest.mark.asyncio
async def test_stream_closed_early_abandons_its_job() -> None:
    abandoned: list[bool] = []
    stream = JobStream(unittest.mock.Mock(), lambda: abandoned.append(True))
    await stream.aclose()
    assert abandoned
    stream.end(None)
    await stream.aclose()
    assert len(abandoned) == 1


@pytest.mark.parametrize("is_short", [True, False])
@pytest.mark.asyncio
async def test_end_is_reported_once_also_of_a_stream_that_has_ended(is_short: bool) -> None:
    stream = JobStream(unittest.mock.Mock(), lambda: None)
    report = unittest.mock.Mock()
    error = ValueError("half-way")
    steps: list[Callable[[], object]] = [lambda: stream.call_at_end(report), lambda: stream.end(error)]
    for step in reversed(steps) if is_short else steps:
        step()
    stream.end(None)
    report.assert_called_once_with(error)


def test_result_that_cannot_be_unpickled_is_a_remote_error() -> None:
    assert unpickled(JobReply([], pickle.dumps(7))) == 7
    with pytest.raises(RemoteError, match="the result cannot be unpickled"):
        unpickled(JobReply([], b"rubbish"))
