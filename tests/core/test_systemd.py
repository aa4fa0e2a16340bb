"""core/systemd.py: reports of one process, of a supervisor and of a reloader."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import served, tinysvc
from paths import ROOT
from tinysvc.core import systemd

SERVICE = """
import os
from tinysvc import cpu_route

@cpu_route("/address")
def address() -> str:
    return os.environ.get("NOTIFY_SOCKET", "none")
"""


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        yield sock


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--reload",)], ids=["alone", "workers", "reload"])
def test_start_reload_and_end_are_reported(options: tuple[str, ...], receiver: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    address = str(tmp_path / "n")
    receiver.bind(address)
    with served(*tinysvc("service.py", *options), cwd=tmp_path, NOTIFY_SOCKET=address) as server:
        assert receiver.recv(4096) == b"READY=1"
        assert server.get("/address").text == "none"
        before = time.monotonic_ns() // 1000
        server.process.send_signal(signal.SIGHUP)
        reloading, _, since = receiver.recv(4096).partition(b"\nMONOTONIC_USEC=")
        assert reloading == b"RELOADING=1"
        assert before <= int(since) <= time.monotonic_ns() // 1000
        assert receiver.recv(4096) == b"READY=1"
        server.process.terminate()
        assert receiver.recv(4096) == b"STOPPING=1"
        assert server.process.wait(30) == 0


def test_abstract_socket_is_found(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.bind(b"")  # the kernel chooses an abstract name
    monkeypatch.setattr(systemd, "_address", "")
    environ = {"NOTIFY_SOCKET": "@" + receiver.getsockname()[1:].decode()}
    systemd.take_notify_socket(environ)
    systemd.notify("READY=1")
    assert receiver.recv(4096) == b"READY=1"
    assert environ == {}


def test_notify_without_an_address_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_address", "")
    systemd.notify("READY=1")


def test_missing_receiver_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_address", str(tmp_path / "none"))
    systemd.notify("READY=1")


def test_reload_before_ready_is_not_reported(receiver: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.bind(b"")
    monkeypatch.setattr(systemd, "_address", "@" + receiver.getsockname()[1:].decode())
    monkeypatch.setattr(systemd, "_last_state", "")
    called: list[int] = []
    systemd.notify_reload(lambda: called.append(1))
    assert called == [1]
    systemd.notify("STOPPING=1")
    assert receiver.recv(4096) == b"STOPPING=1"


def test_systemd_accepts_the_unit_of_the_docs(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (ROOT / "docs" / "deploy.md").read_text().partition("## With systemd\n\n")[2].partition("\n\n")[0]
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.split()[1].partition("~")[0]) < 253:
        text = text.replace("notify-reload", "notify")
    unit = tmp_path / "shop.service"
    unit.write_text(textwrap.dedent(text).replace("/srv/shop/.venv/bin/python", sys.executable) + "\n")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "shop.service" in line]
    assert (done.returncode, said) == (0, [])
