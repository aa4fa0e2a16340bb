"""core/forks.py: a child that a handler has forked is neither a second server nor a second worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Served, served, tinysvc
from system import is_alive, wait_until

SERVICE = """
import asyncio, multiprocessing, os, signal, sys, time
from tinysvc import cpu_route, io_route

def ended(pid):
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)

def fork(how):
    pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(5)
        if how == "text":
            sys.exit("a sentence")
        if how == "raise":
            raise RuntimeError("in the child")
    return pid

@io_route("/async/{how}")
async def in_the_loop(how: str) -> int:
    pid = fork(how)
    if pid == 0 and how == "await":
        await asyncio.sleep(0.01)
        time.sleep(3600)
    return await asyncio.to_thread(ended, pid) if pid else 200

@io_route("/def/{how}")
def in_a_thread(how: str) -> int:
    pid = fork(how)
    return ended(pid) if pid else 200

@cpu_route("/cpu/{how}")
def in_a_worker(how: str) -> int:
    pid = fork(how)
    return ended(pid) if pid else 200

def terminated():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode

@io_route("/terminate/io")
async def terminate_io() -> int:
    return await asyncio.to_thread(terminated)

@io_route("/terminate/loop")
async def terminate_loop() -> int:
    return terminated()

@cpu_route("/terminate/cpu")
def terminate_cpu() -> int:
    return terminated()

@io_route("/stay")
async def stay() -> int:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    child.start()
    return child.pid

@io_route("/pid")
async def pid() -> int:
    return os.getpid()
"""

CASES = {"exit": 5, "text": 1, "raise": 1, "return": 1}


def refuses(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def is_whole(server: Served) -> bool:
    return all(server.get("/pid").json() == server.pid for _ in range(3))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("forks")
    (folder / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py", "--shutdown-timeout", "2"), cwd=folder) as server:
        yield server


@pytest.mark.parametrize("kind", ["async", "def", "cpu"])
@pytest.mark.parametrize("how", CASES)
def test_child_that_returns_from_its_handler_ends(server: Served, kind: str, how: str) -> None:
    assert server.get(f"/{kind}/{how}").json() == CASES[how]
    assert is_whole(server)


def test_child_that_waits_for_the_event_loop_ends(server: Served) -> None:
    assert server.get("/async/await").json() == 1
    assert is_whole(server)


@pytest.mark.parametrize("where", ["io", "loop", "cpu"])
def test_signal_to_the_child_does_not_reach_the_server(server: Served, where: str) -> None:
    assert server.get(f"/terminate/{where}").json() == -signal.SIGTERM
    assert is_whole(server)


def test_child_holds_neither_the_address_nor_connections(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py"), cwd=tmp_path) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET /stay HTTP/1.1\r\nHost: x\r\n\r\n")
            child = int(client.recv(65536).rpartition(b"\r\n")[2])
            try:
                os.kill(server.pid, signal.SIGKILL)
                while client.recv(65536):
                    pass  # the connection ends, although the child lives
                wait_until(lambda: refuses(port), "nobody listens")
                assert is_alive(child)
            finally:
                os.kill(child, signal.SIGKILL)
    wait_until(lambda: not is_alive(child), "it has ended")


def test_owner_that_has_ended_does_not_keep_the_others() -> None:
    """In a process of its own: pytest has owners, too."""
    code = """
import os
from tinysvc.core.forks import detach_in_child

class Owner: pass

def closed(owner):
    raise RuntimeError("Event loop is closed")

read, write = os.pipe()
owners = [Owner() for _ in range(5)]
for number, owner in enumerate(owners):
    detach_in_child(owner, (lambda owner: [write]) if number == 4 else closed)
child = os.fork()
if not child:
    os._exit(0 if os.path.samestat(os.fstat(write), os.stat(os.devnull)) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"
