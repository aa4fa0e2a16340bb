"""watchdog.py: the loop is held for real, by a handler that lets go once that has been said."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest

from conftest import wait_until
from tinysvc import Service, io_route, watchdog
from tinysvc.server import Server
from tinysvc.settings import Settings
from tinysvc.watchdog import LIMIT, watched


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "tinysvc" and r.levelno == logging.WARNING]


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tinysvc-watchdog"]


def more_is_said(caplog: pytest.LogCaptureFixture, already: int) -> bool:
    return len(said(caplog)) > already


let_go: Callable[[], bool]


@io_route("/hold")
async def holds_the_loop() -> str:
    wait_until(let_go, "it was said")
    return "done"


@pytest.mark.asyncio
async def test_a_handler_that_holds_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    global let_go
    async with (
        Server(Service(holds_the_loop), Settings(port=0)).listening() as url,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        for already in (0, 2):
            let_go = partial(more_is_said, caplog, already)
            assert (await client.get("/hold")).text == "done"
            while len(said(caplog)) < already + 2:
                await asyncio.sleep(0)
            first, last = said(caplog)[already:]
            assert "the event loop has been held for 0." in first
            assert "in holds_the_loop" in first
            assert "/tinysvc/http.py" not in first
            assert "asyncio/" not in first
            assert "the event loop is free again" in last
        assert len(watching()) == 1
    assert len(said(caplog)) == 4
    assert not watching()


@pytest.mark.asyncio
async def test_it_is_said_once_however_long_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    with watched(asyncio.get_running_loop()):
        wait_until(lambda: said(caplog), "it was said")
        time.sleep(4 * LIMIT)  # the fault itself
        assert len(said(caplog)) == 1


@pytest.mark.asyncio
async def test_it_ends_while_the_loop_is_held(caplog: pytest.LogCaptureFixture) -> None:
    with watched(asyncio.get_running_loop()):
        wait_until(lambda: said(caplog), "it was said")
    assert not watching()


class Clocks:
    """Stands for `time`, where every look finds `wall` seconds and `cpu` seconds of CPU time gone."""

    def __init__(self, wall: float, cpu: float) -> None:
        self.looks = 0
        self.wall, self.cpu = wall, cpu

    def monotonic(self) -> float:
        self.looks += 1
        return self.looks * self.wall

    def process_time(self) -> float:
        return self.looks * self.cpu


@pytest.mark.asyncio
async def test_a_process_that_was_stopped_is_nobody_s_fault(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(wall=10.0, cpu=0.1)
    monkeypatch.setattr(watchdog, "time", clocks)
    with watched(asyncio.get_running_loop()):
        wait_until(lambda: clocks.looks >= 6, "it has looked a few times")
    assert said(caplog) == []


@pytest.mark.asyncio
async def test_who_keeps_even_the_watchdog_from_running_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "time", Clocks(wall=10.0, cpu=9.0))
    with watched(asyncio.get_running_loop()):
        wait_until(lambda: said(caplog), "it was said")
    assert "test_who_keeps_even_the_watchdog_from_running_is_named" in said(caplog)[0]


@pytest.mark.asyncio
async def test_a_loop_that_is_not_held_is_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(watchdog, "PAUSE", 0.0)
    with watched(loop):
        for _ in range(100):
            loop.call_soon(asked.set)
            await asked.wait()
    assert said(caplog) == []
