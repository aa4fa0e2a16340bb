"""keeper/socket.py: the keeper's socket, also below a long path."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.jobs.keeper import socket as keeper_socket
from tinysvc.jobs.keeper.socket import SOCKET, connected_socket, listening_socket


def assert_connected(folder: Path) -> None:
    with listening_socket(folder) as listener, connected_socket(folder) as client:
        listener.setblocking(True)
        with listener.accept()[0] as accepted:
            accepted.sendall(b"hello")
            client.setblocking(True)
            assert client.recv(5) == b"hello"


def test_socket_of_the_last_keeper_is_replaced(tmp_path: Path) -> None:
    with listening_socket(tmp_path):
        pass
    assert (tmp_path / SOCKET).is_socket()
    with pytest.raises(ConnectionRefusedError):
        connected_socket(tmp_path)
    assert_connected(tmp_path)


def test_missing_keeper_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connected_socket(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="long paths need /proc")
def test_path_may_be_longer_than_that_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="AF_UNIX path too long"):
        sock.bind(str(folder / SOCKET))
    before = os.listdir("/proc/self/fd")
    assert_connected(folder)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_long_path_without_proc_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_socket, "MAX_PATH", 10)
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    with pytest.raises(ConfigurationError, match=r"too long for a Unix socket: .* at most 10; choose a shorter path"):
        listening_socket(tmp_path)
