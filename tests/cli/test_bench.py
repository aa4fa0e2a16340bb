"""`--bench`: its measurements, the routes that it leaves out, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from system import descendants, is_alive, wait_until

SERVICE = """
import asyncio, time
from tinysvc import cpu_route, io_route

@io_route("/quick")
async def quick() -> str:
    return "quick"

@io_route("/slow")
async def slow() -> str:
    await asyncio.sleep(0.6)
    return "slow"

@io_route("/things", methods=["POST"])
async def change() -> None:
    raise AssertionError("asked by --bench")

@io_route("/things/{number}")
async def thing(number: int) -> str:
    raise LookupError(number)

@cpu_route("/compute")
def compute() -> int:
    return sum(range(10000))
"""


def bench(target: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tinysvc", str(target), "--bench", "--cpu-workers", "1", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.usefixtures("nothing_left")
def test_output_has_delays_and_the_routes_left_out(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SERVICE)
    with bench(tmp_path / "shop.py", "--port", "1", "--ssl-cert", "nowhere") as running:  # it takes a port of its own
        said, errors = running.communicate()
    assert running.returncode == 0, errors
    number = r" +\d+\.\d"
    assert re.search(rf"^GET /quick {6 * number}$", said, re.MULTILINE), said
    assert re.search(rf"^\(this client was late\){6 * number}$", said, re.MULTILINE), said
    assert re.search(r"^Saturated: [\d,]+ responses per second from GET /compute to \d+ clients\.$", said, re.MULTILINE)
    assert said.partition("Left out:\n")[2].splitlines() == [
        "  GET /slow: it takes more than 0.5 s",
        "  POST /things: it may change something",
        "  GET /things/{number}: its sample request got status 500; give the route an example=",
    ]
    assert "Failed" not in said


@pytest.mark.parametrize(
    ("decorator", "missing"),
    [
        ("io_route", "a cpu_route that responds to a sample request"),
        ("cpu_route", "an io_route that responds to a sample GET"),
    ],
)
def test_service_without_io_or_cpu_route_is_refused(tmp_path: Path, decorator: str, missing: str) -> None:
    (tmp_path / "shop.py").write_text(
        f"from tinysvc import {decorator}\n@{decorator}('/a')\ndef a() -> int: return 1\n"
    )
    with bench(tmp_path / "shop.py") as running:
        _, errors = running.communicate()
    assert running.returncode == 2
    assert errors.startswith(f"tinysvc: --bench needs {missing}, and there is none")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_signal_ends_all_processes(tmp_path: Path, number: int) -> None:
    (tmp_path / "shop.py").write_text(SERVICE)
    with bench(tmp_path / "shop.py") as running:
        wait_until(lambda: any("spawn_main" in line for line in descendants(running.pid).values()), "it measures")
        time.sleep(0.2)
        below = descendants(running.pid)
        os.kill(running.pid, number)
        running.communicate()
    wait_until(lambda: not any(is_alive(pid) for pid in below), "all have ended")
