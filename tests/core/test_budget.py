"""core/budget.py: budgets only shorten, end with BudgetExhausted, and are read and written as durations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc import BudgetExhausted, budget, seconds_left
from tinysvc.core.budget import current_deadline, format_timeout, parse_timeout, sooner, timeout_of
from tinysvc.core.errors import ProtocolError


@pytest.mark.asyncio
async def test_block_ends_with_budget_exhausted() -> None:
    with pytest.raises(BudgetExhausted, match=r"The budget of 0\.01 s is used up"):
        async with budget(0.01):
            await asyncio.sleep(60)


@pytest.mark.asyncio
async def test_budget_of_zero_ends_at_the_first_wait() -> None:
    with pytest.raises(TimeoutError):
        async with budget(0):
            await asyncio.sleep(60)


@pytest.mark.asyncio
async def test_inner_block_can_only_shorten() -> None:
    assert seconds_left() is None
    async with budget(20):
        outer = current_deadline()
        async with budget(3600):
            assert current_deadline() == outer
        async with budget(1):
            left = seconds_left()
            assert left is not None
            assert left <= 1
        assert current_deadline() == outer
    assert seconds_left() is None


@pytest.mark.asyncio
async def test_block_that_is_in_time_leaves_no_trace() -> None:
    async with budget(30):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert current_deadline() is None


@pytest.mark.asyncio
async def test_error_of_the_block_passes() -> None:
    with pytest.raises(KeyError):
        async with budget(30):
            raise KeyError("x")


@pytest.mark.asyncio
async def test_timeout_of_the_author_is_not_a_used_up_budget() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with budget(30):
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
    assert not isinstance(caught.value, BudgetExhausted)


@pytest.mark.asyncio
async def test_tasks_of_the_block_know_the_deadline() -> None:
    async def left() -> float | None:
        return seconds_left()

    async with budget(30):
        found = await asyncio.gather(left(), left())
    assert all(each is not None and 0 < each <= 30 for each in found)


def test_plain_block_limits_without_an_event_loop() -> None:
    with budget(30):
        left = seconds_left()
        assert left is not None
        assert 0 < left <= 30
    assert seconds_left() is None


def test_nothing_is_left_after_the_deadline() -> None:
    with budget(0):
        assert seconds_left() == 0.0


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), "1", None, True])
def test_budget_takes_a_number_of_seconds(seconds: object) -> None:
    with pytest.raises(ValueError, match="budget takes a number of seconds"):
        budget(seconds)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_generator_may_be_closed_by_another_task() -> None:
    async def items() -> AsyncIterator[int]:
        async with budget(30):
            yield 1

    generator = items()
    assert await anext(generator) == 1
    await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("480ms", 0.48), ("2s", 2.0), ("1.5s", 1.5), ("0s", 0.0), ("250us", 0.00025), ("1m", 60.0), ("2h", 7200.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "ms",
        "-1s",
        "1 s",
        "1e3s",
        "1.s",
        ".5s",
        "1S",
        "0x1s",
        "1d",
        "9999999999999s",
        "\u0661s",
        "nans",
        "1s,2s",
    ],
)
def test_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_timeout(text)
    assert caught.value.status == 400


def test_smaller_of_both_headers_counts() -> None:
    assert timeout_of({b"request-timeout": b"2s"}) == 2.0
    assert timeout_of({b"connect-timeout-ms": b"1500"}) == 1.5
    assert timeout_of({b"request-timeout": b"2s", b"connect-timeout-ms": b"1500"}) == 1.5
    assert timeout_of({b"request-timeout": b"1s", b"connect-timeout-ms": b"1500"}) == 1.0
    for value in (b"", b"1s", b"-1", b"12345678901", b"1.5"):
        with pytest.raises(ProtocolError, match="Connect-Timeout-Ms"):
            timeout_of({b"connect-timeout-ms": value})


@given(st.floats(0, 10_000_000))
def test_written_duration_is_read_again_and_never_longer(seconds: float) -> None:
    found = parse_timeout(format_timeout(seconds))
    assert found <= max(0.001, seconds) + 1e-9
    assert seconds - found < 0.0011


def test_sooner() -> None:
    now = monotonic()
    assert sooner(None, None) is None
    assert sooner(now, None) == sooner(None, now) == now
    assert sooner(now, now + 1) == sooner(now + 1, now) == now
