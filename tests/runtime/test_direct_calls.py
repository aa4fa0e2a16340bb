"""direct_calls.py: a call without a request ends at its deadline, and leaves the task as it was."""

from __future__ import annotations

import asyncio

import pytest

from http_ends import on_loop
from tinysvc import CallFailed, CallTimeout, Response, Service, budget, call, io_route, seconds_left
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work


@io_route("/slow")
async def slow() -> None:
    await asyncio.sleep(60)


@io_route("/stubborn")
async def stubborn() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "kept on"
    return "slept"


@io_route("/fails-late")
async def fails_late() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise ValueError("late")


@io_route("/left", timeout=5)
async def left() -> float | None:
    return seconds_left()


@io_route("/hidden")
async def hidden() -> object:
    return Response(b"x")


HANDLERS = Service(slow, stubborn, fails_late, left, hidden)


def task() -> asyncio.Task[object]:
    found = asyncio.current_task()
    assert found is not None
    return found


@on_loop
async def test_deadline_of_the_setting_ends_a_call() -> None:
    async with at_work(HANDLERS, Settings(call_timeout=0.05)):
        with pytest.raises(CallTimeout):
            await call(slow)
        assert task().cancelling() == 0
        await asyncio.sleep(0)


@on_loop
async def test_handler_that_ignores_the_deadline_leaves_no_cancellation() -> None:
    async with at_work(HANDLERS, Settings(call_timeout=0.05)):
        assert await call(stubborn) == "kept on"
        with pytest.raises(CallFailed) as caught:
            await call(fails_late)
        assert caught.value.answered == 500
        assert task().cancelling() == 0
        await asyncio.sleep(0)


@on_loop
async def test_cancellation_from_outside_is_passed_on() -> None:
    async with at_work(HANDLERS, Settings()):
        waiting = asyncio.ensure_future(call(slow))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@on_loop
async def test_callee_sees_the_sooner_deadline_and_the_caller_its_own() -> None:
    async with at_work(HANDLERS, Settings()), budget(20):
        found = await call(left)
        assert found is not None
        assert found <= 5
        mine = seconds_left()
        assert mine is not None
        assert 15 < mine <= 20


@on_loop
async def test_response_must_be_annotated() -> None:
    async with at_work(HANDLERS, Settings()):
        with pytest.raises(Exception, match="annotate it with -> Response"):
            await call(hidden)
