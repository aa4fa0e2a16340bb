"""watchdog.py: a handler really blocks the loop until the watchdog has logged it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from system import wait_until
from tinysvc import Service, io_route
from tinysvc.core.settings import Settings
from tinysvc.server import watchdog
from tinysvc.server.server import Server
from tinysvc.server.watchdog import LIMIT, PAUSE, watched


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "blocks the event loop" in r.getMessage()]


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tinysvc-watchdog"]


let_go: threading.Event


@io_route("/hold/{how}")
async def holds_the_loop(how: str) -> str:
    if how == "here":
        wait_until(let_go.is_set, "it was logged")
    else:
        deeper()
    return "done"


def deeper() -> None:
    wait_until(let_go.is_set, "it was logged")


class LetGo(logging.Handler):
    """Ends the block of the loop as soon as it is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        if "blocks the event loop" in record.getMessage():
            let_go.set()


@pytest.fixture
def lets_go(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    global let_go
    let_go = threading.Event()
    caplog.set_level(logging.INFO, "tinysvc")
    handler = LetGo()
    logging.getLogger("tinysvc").addHandler(handler)
    yield
    logging.getLogger("tinysvc").removeHandler(handler)


def line_of(text: str) -> int:
    return 1 + next(number for number, line in enumerate(Path(__file__).read_text().splitlines()) if text in line)


@pytest.mark.asyncio
async def test_route_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture, lets_go: None) -> None:
    async with (
        Server(Service(Service(holds_the_loop, prefix="/v1")), Settings(port=0)).listening() as url,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        for how, line in (("here", 'wait_until(let_go.is_set, "it was logged")'), ("deeper", "        deeper()")):
            let_go.clear()
            caplog.clear()
            assert (await client.get(f"/v1/hold/{how}")).text == "done"
            while "the event loop is free again" not in caplog.text:
                await asyncio.sleep(0)
            (text,) = logged(caplog)
            assert text.startswith("GET /v1/hold/{how} blocks the event loop, for 0.")
            assert f" at {__file__}:{line_of(line)}: no other request is served" in text
            assert "Make it @cpu_route" in text
            assert "in holds_the_loop" in text
            assert ("in deeper" in text) == (how == "deeper")
            assert "/tinysvc/http.py" not in text
            assert "asyncio/" not in text
        assert len(watching()) == 1
    assert not watching()


@io_route("/sleep")
async def sleeps() -> None:
    time.sleep(LIMIT + 4 * PAUSE)  # the fault itself


@pytest.mark.asyncio
async def test_same_line_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tinysvc")
    async with (
        Server(Service(sleeps), Settings(port=0)).listening() as url,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        for times in (1, 2):
            while caplog.text.count("the event loop is free again") < times:  # the machine may be late for one
                await client.get("/sleep")
                await asyncio.sleep(PAUSE)
    assert len(logged(caplog)) == 1


@pytest.mark.asyncio
async def test_long_block_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with watched(asyncio.get_running_loop(), {}):
        wait_until(lambda: logged(caplog), "it was logged")
        time.sleep(4 * LIMIT)  # the fault itself
        assert len(logged(caplog)) == 1


@pytest.mark.asyncio
async def test_watchdog_ends_while_the_loop_is_blocked(caplog: pytest.LogCaptureFixture) -> None:
    with watched(asyncio.get_running_loop(), {}):
        wait_until(lambda: logged(caplog), "it was logged")
    assert not watching()


class Clocks:
    """Replaces `time`: each call finds that `wall` seconds, and `cpu` seconds of CPU time, have passed."""

    def __init__(self, wall: float, cpu: float) -> None:
        self.looks = 0
        self.wall, self.cpu = wall, cpu

    def monotonic(self) -> float:
        self.looks += 1
        return self.looks * self.wall

    def process_time(self) -> float:
        return self.looks * self.cpu


@pytest.mark.asyncio
async def test_stopped_process_is_not_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(wall=10.0, cpu=0.1)
    monkeypatch.setattr(watchdog, "time", clocks)
    with watched(asyncio.get_running_loop(), {}):
        wait_until(lambda: clocks.looks >= 6, "it has looked a few times")
    assert logged(caplog) == []


@pytest.mark.asyncio
async def test_code_that_blocks_the_watchdog_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "time", Clocks(wall=10.0, cpu=9.0))
    with watched(asyncio.get_running_loop(), {}):
        wait_until(lambda: logged(caplog), "it was logged")
    assert "test_code_that_blocks_the_watchdog_is_named" in logged(caplog)[0]


@pytest.mark.asyncio
async def test_free_loop_is_not_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(watchdog, "PAUSE", 0.0)
    with watched(loop, {}):
        for _ in range(100):
            loop.call_soon(asked.set)
            await asked.wait()
    assert logged(caplog) == []
