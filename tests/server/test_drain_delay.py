"""`drain_delay`: after SIGTERM a server accepts connections for a while, and lets its balancers know."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import pytest

from commands import HELLO, served, tinysvc

DELAY = 1.0


def options(*more: str) -> tuple[str, ...]:
    return tinysvc("service.py", "--drain-delay", str(DELAY), *more)


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_server_accepts_connections_and_is_not_ready(more: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with served(*options(*more), cwd=tmp_path) as server, httpx.Client(base_url=server.url) as client:
        assert "connection" not in client.get("/").headers
        assert server.get("/readyz").status_code == 200
        server.process.terminate()
        begin = time.monotonic()
        while server.get("/readyz").status_code == 200:
            assert time.monotonic() - begin < DELAY
        assert server.get("/readyz").json()["status"] == "draining"
        kept = client.get("/")  # on the connection from before
        assert (kept.status_code, kept.headers["connection"]) == (200, "close")
        assert server.get("/pid").headers["connection"] == "close"
        assert server.process.wait(30) == 0
        assert time.monotonic() - begin >= DELAY - 0.01
        with pytest.raises(httpx.ConnectError):
            server.get("/")


def test_unix_socket_is_reachable_during_the_delay(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    path = str(tmp_path / "s")
    with served(*options("--workers", "2", "--unix", path), cwd=tmp_path) as server:
        server.process.terminate()
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://service") as client:
            while client.get("/readyz").status_code == 200:
                pass
        assert server.process.wait(30) == 0
        assert not Path(path).exists()


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["alone", "workers"])
def test_interrupt_from_a_terminal_drains_at_once(more: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with served(*tinysvc("service.py", "--drain-delay", "600", *more), cwd=tmp_path) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def test_second_signal_ends_the_delay(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(HELLO)
    with served(*tinysvc("service.py", "--drain-delay", "600"), cwd=tmp_path) as server:
        server.process.terminate()
        while server.get("/readyz").status_code == 200:
            pass
        server.process.terminate()
        assert server.process.wait(30) == 128 + signal.SIGTERM
