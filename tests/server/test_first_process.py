"""first_process.py: the first process of a container reaps its orphans, and passes signals and the exit status on."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from commands import Served, failed, served, tinysvc
from system import wait_until
from tinysvc.pool.descendants import children

CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def refusal() -> str:
    """Why no namespace of processes can be made here; empty if one can."""
    try:
        tried = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        return str(error)
    return tried.stderr if tried.returncode else ""


pytestmark = pytest.mark.skipif(bool(REFUSAL := refusal()), reason=f"no first process here: {REFUSAL}")

RUN = f"import os, sys; os.execvp('unshare', [*{CONTAINER!r}, sys.executable, *sys.argv[1:]])"
ALL = pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--reload",)], ids=["alone", "workers", "reload"])

SERVICE = """
import os, pathlib, signal, subprocess, threading
from tinysvc import cpu_route, io_route, run

children = {}

def orphan():
    subprocess.run(["setsid", "-f", "true"], check=True)

@io_route("/orphan/io")
def orphan_of_io() -> int:
    orphan()
    return os.getpid()

@cpu_route("/orphan/cpu")
def orphan_of_cpu() -> int:
    orphan()
    return os.getpid()

@io_route("/start")
async def start() -> int:
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    children[child.pid] = child
    return child.pid

@io_route("/state/{pid}")
async def state(pid: int) -> str:
    return pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]

@io_route("/status/{pid}")
async def status(pid: int) -> int:
    return children[pid].wait()

@io_route("/zombies")
async def zombies() -> list[int]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            state, parent = pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(pid) not in children:
            found.append(int(pid))
    return found

@io_route("/die/{number}")
async def die(number: int) -> None:
    os.kill(os.getpid(), number)

@io_route("/parent")
async def parent() -> int:
    return os.getppid()
"""

PROGRAM = """
from service import *

if __name__ == "__main__":
    stop = threading.Event()
    threading.Thread(target=stop.wait, daemon=True).start()
    run("service.py", port=0)
"""

WITH_A_SOCKET = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
os.set_inheritable(os.dup2(listener.fileno(), 3), True)
os.environ |= {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


def first_of(server: Served) -> int:
    """The pid of the first process, as it is seen from outside of its container."""
    (first,) = children(server.pid)
    return first


@ALL
def test_orphans_are_reaped(options: tuple[str, ...], folder: Path) -> None:
    with served("-c", RUN, *tinysvc("service.py", *options), cwd=folder) as server:
        for _ in range(5):
            assert server.get("/orphan/io").status_code == server.get("/orphan/cpu").status_code == 200
        wait_until(lambda: server.get("/zombies").json() == [], "every orphan has been reaped")


def test_handler_gets_the_exit_status_of_its_child_late(folder: Path) -> None:
    with served("-c", RUN, *tinysvc("service.py"), cwd=folder) as server:
        child = server.get("/start").json()
        wait_until(lambda: server.get(f"/state/{child}").text == "Z", "it has ended")
        server.get("/orphan/io")
        wait_until(lambda: server.get("/zombies").json() == [], "the orphan has been reaped")
        assert server.get(f"/status/{child}").json() == 7


@ALL
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_first_process_drains(number: int, options: tuple[str, ...], folder: Path) -> None:
    with served("-c", RUN, *tinysvc("service.py", *options), cwd=folder) as server:
        os.kill(first_of(server), number)
        assert server.process.wait(30) == 0


def test_other_signals_are_passed_on(folder: Path) -> None:
    with served("-c", RUN, *tinysvc("service.py"), cwd=folder) as server:
        assert server.process.stderr is not None
        os.kill(first_of(server), signal.SIGHUP)
        while "SIGHUP reloads the certificates" not in (line := server.process.stderr.readline()):
            assert line, "the log has ended"


def test_exit_status_is_that_of_the_server(folder: Path) -> None:
    status, errors = failed("-c", RUN, *tinysvc("absent.py"), cwd=folder)
    assert status == 2
    assert errors.startswith("tinysvc: ")


def test_death_by_a_signal_has_the_exit_status_of_a_shell(folder: Path) -> None:
    with served("-c", RUN, *tinysvc("service.py"), cwd=folder) as server:
        with pytest.raises(Exception, match="disconnected"):
            server.get(f"/die/{int(signal.SIGKILL)}")
        assert server.process.wait(30) == 128 + signal.SIGKILL


def test_sockets_of_a_service_manager_are_taken(folder: Path) -> None:
    with served("-c", WITH_A_SOCKET, "-c", RUN, "-m", "tinysvc", "service.py", cwd=folder) as server:
        assert not server.url.endswith(":8000")
        assert server.get("/zombies").json() == []


def test_program_with_threads_stays_the_first_process(folder: Path) -> None:
    (folder / "program.py").write_text(PROGRAM)
    with served("-c", RUN, "program.py", cwd=folder) as server:
        assert server.get("/parent").json() == 0
        server.process.kill()
        assert "docker run --init" in server.process.communicate()[1]


def test_elsewhere_no_process_is_added(folder: Path) -> None:
    with served(*tinysvc("service.py"), cwd=folder) as server:
        assert server.get("/parent").json() == os.getpid()
