"""hints.py: said once, and only where the work is smaller than the trip."""

from __future__ import annotations

import logging

import httpx
import pytest

from tinysvc import Service, cpu_route
from tinysvc.runtime.advice import ENOUGH, Sample
from tinysvc.testing import serving


def hints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "a hint" in record.getMessage()]


@cpu_route("/small/{x}")
def small(x: int) -> int:
    return x


def test_a_route_that_need_not_go_to_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinysvc")
    with serving(Service(small, prefix="/all"), cpu_workers=1) as url, httpx.Client(base_url=url) as client:
        for number in range(ENOUGH + 10):
            assert hints(caplog) == [] or number >= ENOUGH
            assert client.get(f"/all/small/{number}").json() == number
    (hint,) = hints(caplog)
    assert hint.startswith("a hint: GET /all/small/{x} works for ")


def test_work_that_is_worth_the_trip(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinysvc")
    sample = Sample("GET /big")
    assert [sample.is_full_with(0.002, 0.0021) for _ in range(ENOUGH)] == [False] * (ENOUGH - 1) + [True]
    assert hints(caplog) == []


def test_a_busy_loop_is_not_the_trip(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinysvc")
    sample = Sample("GET /big")
    for number in range(ENOUGH):
        sample.is_full_with(0.002, 0.0021 if number == 7 else 0.1)
    assert hints(caplog) == []
