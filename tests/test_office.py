"""The example `office`: three services in one process, in three processes, and the page in a browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from browser import chromium, needs_browser
from system import descendants, is_alive, wait_until
from tinysvc.testing import serving

OFFICE = Path(__file__).parents[1] / "examples" / "office"
BASKET = {"items": {"pen": 2, "desk": 1}}
PICKED = [{"item": "pen", "count": 2, "shelf": "A1"}, {"item": "desk", "count": 1, "shelf": "hall 3"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The base URL of `orders`; all three run in one process."""
    with serving(str(OFFICE), raise_errors=False) as url:
        yield f"{url}/orders"


def order(url: str, mood: str = "usual") -> httpx.Response:
    return httpx.post(f"{url}/order", params={"mood": mood}, json=BASKET, timeout=30)


def steps(url: str, mood: str) -> list[tuple[str, bool]]:
    """The service of each step of an order's path, and whether the step has failed."""
    response = httpx.post(f"{url}/walk", params={"mood": mood}, json=BASKET, timeout=30)
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["milliseconds"] for line in lines] == sorted(line["milliseconds"] for line in lines)
    return [(line["service"], line["failed"]) for line in lines]


def assert_order_succeeds(url: str) -> None:
    receipt = order(url).json()
    assert receipt["picked"] == PICKED
    assert 182 < receipt["total"] < 2 * 182


def test_order_succeeds_in_one_process(url: str) -> None:
    assert_order_succeeds(url)
    assert order(url, "angry").status_code == 422


@pytest.mark.parametrize("name", ["pricing", "stock"])
def test_committed_proto_file_is_up_to_date(name: str) -> None:
    printed = [sys.executable, "-m", "tinysvc", f"{name}.py", "--proto"]
    found = subprocess.run(printed, cwd=OFFICE, capture_output=True, text=True, check=True)
    assert found.stdout == (OFFICE / f"{name}.proto").read_text()


@pytest.mark.parametrize(("mood", "status", "kind"), [("slow", 504, "budget-exhausted"), ("dies", 502, "call-failed")])
def test_trouble_of_pricing_becomes_the_response(url: str, mood: str, status: int, kind: str) -> None:
    response = order(url, mood)
    assert (response.status_code, response.json()["type"]) == (status, f"urn:tinysvc:{kind}")
    assert_order_succeeds(url)


def test_walk_shows_each_step(url: str) -> None:
    usual = ["orders", "pricing", "pricing", "stock", "stock", "orders"]
    assert steps(url, "usual") == [(service, False) for service in usual]
    assert steps(url, "slow") == [("orders", False), ("pricing", False), ("pricing", True)]


# Three processes


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def three_processes(*options: str) -> Iterator[tuple[str, int]]:
    """The base URL of orders, and the process that starts and restarts all."""
    ports = free_ports(3)
    command = [sys.executable, str(OFFICE), "--ports", *map(str, ports), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as office:
        try:
            url = f"http://127.0.0.1:{ports[0]}"
            wait_until(lambda: all(text.startswith("process") for text in processes(url).values()), "all are started")
            yield url, office.pid
        finally:
            below = descendants(office.pid)
            office.terminate()
            office.wait(20)
    wait_until(lambda: not any(map(is_alive, below)), "all processes have ended")


def processes(url: str) -> dict[str, str]:
    try:
        found: dict[str, str] = httpx.get(f"{url}/processes", timeout=30).json()
    except httpx.TransportError:
        return {"orders": "starts"}
    return found


def pid_of(url: str, service: str) -> int:
    return int(processes(url)[service].removeprefix("process "))


def test_pricing_is_killed_and_started_again() -> None:
    with three_processes() as (url, _):
        assert_order_succeeds(url)
        killed = pid_of(url, "pricing")
        assert len({killed, pid_of(url, "orders"), pid_of(url, "stock")}) == 3
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: order(url).status_code == 503, "orders are refused")
        assert processes(url)["pricing"].startswith("503: ")
        wait_until(lambda: order(url).status_code == 200, "orders succeed again")
        assert pid_of(url, "pricing") != killed


def test_stopped_pricing_uses_up_the_time_of_an_order_by_grpc() -> None:
    with three_processes("--grpc") as (url, _):
        assert sorted(each["item"] for each in order(url).json()["picked"]) == ["desk", "pen"]
        stopped = pid_of(url, "pricing")
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert order(url).status_code == 504
        finally:
            os.kill(stopped, signal.SIGCONT)
        wait_until(lambda: order(url).status_code == 200, "orders succeed again")


# The page


@needs_browser
@pytest.mark.browser
def test_page_shows_the_path_of_an_order(url: str, tmp_path: Path) -> None:
    with chromium(tmp_path) as browser:
        page = browser.tab(url)
        page.until("document.querySelectorAll('#processes tr').length == 3")
        page.run("document.querySelector('[data-mood=usual]').click()")
        page.until("document.querySelector('#path').innerText.includes('sends the receipt')")
        assert page.run("document.querySelectorAll('#path .failed').length") == 0
        page.run("document.querySelector('[data-mood=dies]').click()")
        page.until("document.querySelectorAll('#path .failed').length == 1")
        assert "502" in page.text("#path .failed")
