"""core/threads.py: blocking functions in threads, and their cancellation."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from tinysvc.core.threads import in_thread

happened: list[str] = []


def test_cancelled_task_never_starts_its_waiting_thread() -> None:
    async def check() -> None:
        from anyio.to_thread import current_default_thread_limiter

        current_default_thread_limiter().total_tokens = 1
        stop = threading.Event()
        first = asyncio.create_task(in_thread(lambda: stop.wait(20)))
        second = asyncio.create_task(in_thread(lambda: happened.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        stop.set()
        assert await first

    happened.clear()
    asyncio.run(check())
    assert happened == []


def test_cleanup_runs_on_cancellation_without_a_free_thread() -> None:
    async def check() -> None:
        from anyio.to_thread import current_default_thread_limiter

        current_default_thread_limiter().total_tokens = 1
        stop = threading.Event()
        first = asyncio.create_task(in_thread(lambda: stop.wait(20)))
        closing = asyncio.create_task(in_thread(lambda: happened.append("closed"), always=True))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert happened == ["closed"]
        stop.set()
        assert await first

    happened.clear()
    asyncio.run(check())


def test_cancelled_anyio_scope_waits_for_the_thread() -> None:
    async def check() -> None:
        stop, ended = threading.Event(), threading.Event()

        def work() -> None:
            stop.wait(20)
            ended.set()

        with anyio.CancelScope() as scope:
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, scope.cancel)
            loop.call_later(0.1, stop.set)  # many deliveries of the cancellation later
            await in_thread(work)
        assert scope.cancelled_caught
        assert ended.is_set()

    asyncio.run(check())
