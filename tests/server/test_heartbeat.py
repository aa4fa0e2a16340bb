"""heartbeat.py: reports for the watchdog of systemd, from one process and from several."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from commands import served, tinysvc
from tinysvc.core import systemd
from tinysvc.server.heartbeat import Heartbeat, Pulse

SERVICE = """
import os, time
from tinysvc import cpu_route, io_route

@cpu_route("/pid")
def pid() -> int:
    return os.getpid()

@io_route("/hold")
async def hold() -> str:
    time.sleep(3)
    return ""
"""


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        sock.settimeout(30)
        yield sock


def variables(folder: Path, seconds: float) -> dict[str, str]:
    (folder / "service.py").write_text(SERVICE)
    return {"NOTIFY_SOCKET": str(folder / "n"), "WATCHDOG_USEC": str(int(seconds * 1e6))}


def wait_for_silence(receiver: socket.socket) -> None:
    """Until no report comes for more than the time of the watchdog."""
    receiver.settimeout(1.0)
    with suppress(TimeoutError):
        while receiver.recv(4096):
            pass


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--reload",)], ids=["alone", "workers", "reload"])
def test_living_service_reports(options: tuple[str, ...], receiver: socket.socket, tmp_path: Path) -> None:
    with served(*tinysvc("service.py", *options), cwd=tmp_path, **variables(tmp_path, 0.4)) as server:
        assert [receiver.recv(4096) for _ in range(4)] == [b"READY=1", *[b"WATCHDOG=1"] * 3]
        server.process.send_signal(signal.SIGHUP)
        while not receiver.recv(4096).startswith(b"RELOADING=1"):
            pass
        assert [receiver.recv(4096) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
        server.process.terminate()
        while receiver.recv(4096) != b"STOPPING=1":
            pass
        assert server.process.wait(30) == 0
        receiver.settimeout(0)
        with pytest.raises(BlockingIOError):
            receiver.recv(4096)


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_held_event_loop_ends_the_reports(options: tuple[str, ...], receiver: socket.socket, tmp_path: Path) -> None:
    with served(*tinysvc("service.py", *options), cwd=tmp_path, **variables(tmp_path, 0.4)) as server:
        assert receiver.recv(4096) == b"READY=1"
        with httpx.Client(timeout=0.1) as client, pytest.raises(httpx.ReadTimeout):
            client.get(server.url + "/hold")
        wait_for_silence(receiver)


def test_pool_without_workers_ends_the_reports(receiver: socket.socket, tmp_path: Path) -> None:
    fails = f"\nif os.path.exists({str(tmp_path / 'fails')!r}):\n    raise RuntimeError\n"
    given = variables(tmp_path, 0.4)
    (tmp_path / "service.py").write_text(SERVICE + fails)
    with served(*tinysvc("service.py", "--cpu-workers", "1"), cwd=tmp_path, **given) as server:
        worker = server.get("/pid").json()
        (tmp_path / "fails").touch()
        parent = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)  # the forkserver: another one cannot load the service
        wait_for_silence(receiver)
        assert server.get("/livez").status_code == 200


@pytest.mark.asyncio
async def test_heartbeat_pauses_while_the_service_is_not_alive() -> None:
    is_alive, beats = True, 0
    beat = asyncio.Event()

    def report() -> None:
        nonlocal beats
        beats += 1
        beat.set()

    heartbeat = Heartbeat(0.01, lambda: is_alive, report)
    assert beats == 1
    beat.clear()
    await asyncio.wait_for(beat.wait(), 30)
    is_alive, before = False, beats
    await asyncio.sleep(0.05)
    assert beats == before
    heartbeat.cancel()


def test_pulse_is_that_of_all_processes() -> None:
    pulse = Pulse(60.0)
    assert not pulse.is_regular([])
    pulse.beat(1)
    assert pulse.is_regular([1])
    assert not pulse.is_regular([1, 2])
    pulse.beat(2)
    assert pulse.is_regular([1, 2])
    assert pulse.is_regular([2])
    assert not pulse.is_regular([1]), "a pid that has left and comes again is another process"


def test_late_pulse_is_not_regular() -> None:
    pulse = Pulse(0.0)
    pulse.beat(1)
    assert not pulse.is_regular([1])


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 0.0),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"}, 30.0),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_time_of_the_watchdog(environ: dict[str, str], seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_address", "")
    monkeypatch.setattr(systemd, "_watchdog", 0.0)
    systemd.take_notify_socket(environ)
    assert systemd.watchdog_time() == seconds
    assert environ == {}
