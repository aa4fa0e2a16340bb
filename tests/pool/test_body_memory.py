"""body_memory.py: arenas are kept for the next big body, and given back when none comes."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

from system import until
from tinysvc.pool import body_memory
from tinysvc.pool.arena import Arena
from tinysvc.pool.body_memory import BodyMemory
from tinysvc.pool.frames import RunProgram
from tinysvc.pool.job_reply import JobReply
from tinysvc.pool.scheduler import Scheduler
from tinysvc.pool.state import Job

LIMIT = 1 << 20


class Channel:
    """The part of a worker's channel that holds its arena."""

    def __init__(self, memory: BodyMemory, arena: Arena | None) -> None:
        self.arena = arena
        self.arenas = memory.arenas


def memory() -> BodyMemory:
    return BodyMemory(Scheduler(1, 1, 0, 0), LIMIT)


def job_with(arena: Arena) -> Job:
    job = Job(None, kind=RunProgram)
    job.arena = arena
    return job


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.asyncio
async def test_arena_of_a_finished_body_is_used_again_and_then_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_memory, "SPARE", 0.01)
    kept = memory()
    arena = kept.arenas.take()
    arena.write(b"x" * 1000)
    kept.release(job_with(arena), JobReply(None, b""))
    assert len(kept.arenas) == 1
    await until(lambda: not len(kept.arenas))
    kept.close()


@pytest.mark.asyncio
async def test_arena_that_a_worker_may_still_use_is_closed() -> None:
    kept = memory()
    arena = kept.arenas.take()
    kept.release(job_with(arena), TimeoutError())
    assert not is_open(arena.descriptor)
    assert not len(kept.arenas)
    kept.close()


@pytest.mark.asyncio
async def test_result_is_read_in_place_and_its_arena_is_kept_afterwards() -> None:
    kept = memory()
    arena = Arena()
    arena.write(b"result")
    channel = Channel(kept, arena)
    view = kept.take_result(channel, 6)  # type: ignore[arg-type]
    assert bytes(view) == b"result"
    assert channel.arena is None
    assert not len(kept.arenas)
    del view
    gc.collect()
    await asyncio.sleep(0)
    assert len(kept.arenas) == 1
    kept.close()


@pytest.mark.parametrize("size", [0, 7, LIMIT + 1])
def test_result_of_a_size_that_the_arena_cannot_hold_is_refused(size: int) -> None:
    kept = memory()
    arena = Arena()
    arena.write(b"result")
    os.ftruncate(arena.descriptor, 6)
    with pytest.raises(ValueError, match=rf"sent a result of {size} bytes in an arena that holds 6"):
        kept.take_result(Channel(kept, arena), size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"in an arena that holds 0"):
        kept.take_result(Channel(kept, None), 6)  # type: ignore[arg-type]
    arena.close()
    kept.close()
