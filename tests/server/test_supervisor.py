"""supervisor.py: several server processes behind one address; how they end and how they are replaced."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from commands import Served, command, failed, served, tinysvc
from paths import SUPPORT
from system import PROC, descendants, is_alive, parent, wait_until, workers_below
from tinysvc.core.settings import Settings
from tinysvc.server.supervisor import Supervisor

SERVICE = """
import os, pathlib, signal, time
from tinysvc import cpu_route, io_resource, io_route

@io_resource
async def closed():
    yield
    pathlib.Path(f"closed-{os.getpid()}").touch()

@io_route("/")
async def root(closed) -> int:
    return os.getpid()

@io_route("/end")
async def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

@io_route("/stall")
async def stall() -> None:
    pathlib.Path("stalled").touch()
    time.sleep(3600)

@cpu_route("/worker")
def worker() -> int:
    return os.getpid()
"""
RUN = "\nif __name__ == '__main__':\n    import tinysvc\n    tinysvc.run(__name__, port=0, workers=2, cpu_workers=2)\n"

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(SERVICE)
    return tmp_path


def two(*arguments: str) -> tuple[str, ...]:
    return tinysvc("service.py", "--workers", "2", *arguments)


def children(pid: int) -> list[int]:
    return sorted(child for child in descendants(pid) if parent(child) == pid)


def errors_of(server: Served) -> str:
    """Its standard error, once it has ended."""
    _, errors = server.process.communicate(timeout=30)
    return errors


def port_of(server: Served) -> int:
    return int(server.url.rpartition(":")[2])


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 20).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the listening socket closed at this moment
        pass
    return False


def responders(server: Served) -> set[int]:
    """The processes that respond on a few dozen new connections."""
    return {_responder(port_of(server)) for _ in range(40)}


def _responder(port: int) -> int:
    """0 if the process ends, or stops listening, before it accepts this connection."""
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = connection.recv(4096)
    except ConnectionError:
        return 0
    return int(answer.rpartition(b"\r\n")[2]) if answer.startswith(b"HTTP/1.1 200 ") else 0


@contextmanager
def connected_to(pid: int, server: Served) -> Iterator[httpx.Client]:
    while True:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            if client.get("/").json() == pid:
                yield client
                return


def wait_for_both(server: Served, without: int = 0) -> list[int]:
    """Wait until two server processes respond, none of them `without`; return them."""
    wait_until(lambda: len(responders(server) - {without, 0}) == 2, "two processes respond")
    return children(server.pid)


@pytest.fixture
def family() -> Iterator[list[int]]:
    """Processes that must have ended when the test ends."""
    pids: list[int] = []
    yield pids
    wait_until(lambda: not any(map(is_alive, pids)), "all processes of the server have ended")


# Normal operation


def test_processes_share_port_and_workers(folder: Path) -> None:
    with served(*two(), cwd=folder) as server:
        assert server.lines[:-1] == [
            "GET  /        io   service.root",
            "GET  /end     io   service.end",
            "GET  /stall   io   service.stall",
            "GET  /worker  cpu  service.worker",
        ]
        assert re.fullmatch(r"listening on http://127\.0\.0\.1:[0-9]+ with 2 processes", server.lines[-1])
        both = wait_for_both(server)
        assert responders(server) == set(both)
        assert [len(workers_below(pid)) for pid in both] == [1, 1]
        server.process.terminate()
        assert (errors_of(server), server.process.returncode) == ("", 0)
    assert {f"closed-{pid}" for pid in both} == {path.name for path in folder.glob("closed-*")}


def test_options_of_the_service_are_used(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"workers=3, port={port}, cpu_workers=1"
    own = f"\nimport tinysvc\nservice = tinysvc.Service(closed, end, root, stall, worker, {options})\n"
    (folder / "service.py").write_text(SERVICE + own)
    for arguments, processes in ((), 3), (("--workers", "2"), 2):
        with served("-m", "tinysvc", "service.py", *arguments, cwd=folder) as server:
            assert server.lines[-1] == f"listening on http://127.0.0.1:{port} with {processes} processes"
            assert len(children(server.pid)) == processes
            server.process.terminate()
            assert (errors_of(server), server.process.returncode) == ("", 0)


def test_unix_socket_is_shared_and_removed_at_the_end(folder: Path) -> None:
    path = folder / "socket"
    with served(*two("--unix", str(path)), cwd=folder) as server:
        assert server.lines[-1] == f"listening on unix:{path} with 2 processes"

        def ask() -> int:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=20) as client:
                pid: int = client.get("http://x/").json()
                return pid

        first = ask()
        os.kill(first, signal.SIGTERM)  # only this process drains; the others use its address, too
        wait_until(lambda: not is_alive(first), "it has ended")
        assert ask() in children(server.pid)
        server.process.terminate()
        errors_of(server)
        assert server.process.returncode == 0
    assert not path.exists()


def test_no_process_inherits_sockets_of_the_supervisor(folder: Path) -> None:
    """If another process held a link open, a server process would not notice that its supervisor has died."""

    def sockets(pid: int) -> set[str]:
        return {link for entry in (PROC / str(pid) / "fd").iterdir() if (link := os.readlink(entry))[:6] == "socket"}

    with served(*two(), cwd=folder) as server:
        os.kill(children(server.pid)[0], signal.SIGKILL)
        both = wait_for_both(server)
        listening = {
            f"socket:[{line.split()[9]}]"
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port_of(server):04X}") and line.split()[3] == "0A"
        }
        assert len(listening) == 2
        for pid in descendants(server.pid):
            assert not sockets(pid) & sockets(server.pid)
            assert len(sockets(pid) & listening) == (pid in both)


# Replacement


def test_others_serve_while_a_dead_process_is_replaced(folder: Path) -> None:
    with served(*two(), cwd=folder) as server:
        first, second = children(server.pid)
        workers = workers_below(first)
        with connected_to(second, server) as client:
            os.kill(first, signal.SIGKILL)
            while first in children(server.pid):
                assert client.get("/").json() == second
        wait_until(lambda: not any(map(is_alive, workers)), "its workers have ended")
        both = wait_for_both(server, without=first)
        assert second in both
        server.process.terminate()
        assert re.fullmatch(
            rf"ERROR tinysvc\[{server.pid}\]: server process {first} was ended by SIGKILL; "
            r"it is restarted at once\n",
            errors_of(server),
        )
        assert server.process.returncode == 0


def test_process_that_was_asked_to_end_is_replaced(folder: Path) -> None:
    with served(*two(), cwd=folder) as server:
        first = children(server.pid)[0]
        os.kill(first, signal.SIGTERM)
        wait_for_both(server, without=first)
        server.process.terminate()
        assert f"server process {first} ended with status 0; it is restarted in 1.0 s" in errors_of(server)
        assert (folder / f"closed-{first}").exists()


def test_all_processes_die_at_once(folder: Path) -> None:
    with served(*two(), cwd=folder) as server:
        dead = children(server.pid)
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(set(children(server.pid)) - set(dead)) == 2, "both are replaced")
        wait_until(lambda: not refuses(port_of(server)), "one listens")
        wait_for_both(server)


def test_service_with_a_new_mistake_is_retried(folder: Path) -> None:
    """An author saves a mistake, and corrects it later."""
    with served(*two(), cwd=folder) as server:
        first, second = children(server.pid)
        (folder / "service.py").write_text("1 / 0\n")
        os.kill(first, signal.SIGKILL)
        assert server.process.stderr
        lines = iter(server.process.stderr)
        assert "was ended by SIGKILL; it is restarted at once" in next(lines)
        text = ""
        while "it is restarted in 0.1 s" not in text:
            text += next(lines)
        assert "cannot start: importing " in text
        assert "ZeroDivisionError" in text
        assert server.get("/").json() == second
        (folder / "service.py").write_text(SERVICE)
        assert second in wait_for_both(server, without=first)


# Failures at the start


def test_failure_reported_before_the_end_ends_the_others() -> None:
    """The report is read after the end of the process, which cannot get a signal any more."""
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    signals, link = socket.socketpair(), socket.socketpair()
    with signals[0], signals[1], link[0], link[1]:
        supervisor = Supervisor(lambda _: None, Settings(workers=2), print, lambda: False, signals)
        server_process = supervisor.processes[0]
        link[0].setblocking(False)
        server_process.started(process.pid, link[0])
        supervisor._selector.register(link[0], selectors.EVENT_READ)
        link[1].send(b'{"failed": ["no data", 3]}\n')
        supervisor._on_end(server_process, 3)
        assert (str(supervisor.failure), supervisor.ending, server_process.pid) == ("no data", True, 0)


def test_long_line_to_a_process_waits_for_no_reader() -> None:
    signals, link = socket.socketpair(), socket.socketpair()
    with signals[0], signals[1], link[0], link[1]:
        supervisor = Supervisor(lambda _: None, Settings(workers=2), print, lambda: False, signals)
        process = supervisor.processes[0]
        link[0].setblocking(False)
        supervisor._selector.register(link[0], selectors.EVENT_READ, partial(supervisor._on_link, process))
        process.started(1, link[0])
        line = b"x" * 3_000_000
        supervisor._send(1, line)
        supervisor._send(2, b"to nobody")
        assert 0 < len(process.outgoing) < len(line)
        received = b""
        while len(received) <= len(line):
            for key, _ in supervisor._selector.select(5):
                key.data()
            received += link[1].recv(1_000_000)
        assert received == line + b"\n"
        assert process.outgoing == b""
        assert supervisor._selector.get_key(link[0]).events == selectors.EVENT_READ
        process.pid = 0  # it is not ours


@pytest.mark.parametrize("workers", ["1", "2"])
def test_used_port_is_named(folder: Path, workers: str) -> None:
    """Although both use SO_REUSEPORT, which the kernel accepts. The other server is not disturbed."""
    with served(*two(), cwd=folder) as server:
        port = str(port_of(server))
        status, errors = failed(
            "-m", "tinysvc", "service.py", "--port", port, "--workers", workers, "--cpu-workers", "1", cwd=folder
        )
        assert (status, errors) == (
            3,
            f"tinysvc: cannot listen on 127.0.0.1:{port}: another process does; "
            "stop it or choose --port (0 takes a free one)\n",
        )
        assert responders(server) <= set(children(server.pid))


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_all_processes(folder: Path, number: signal.Signals) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py"), "--workers", "2"), cwd=folder) as server:
        both, go, port = children(server.pid), folder / "go", port_of(server)
        busy = []
        for each in range(8):
            started = folder / f"started-{each}"
            busy.append(socket.create_connection(("127.0.0.1", port), 20))
            target = f"/io-wait?started={started}&go={go}"
            busy[-1].sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(started.exists, "the handler runs")
        for pid in (*both, server.pid):  # a service manager may signal all of them: that is not a second signal
            os.kill(pid, number)
        wait_until(lambda: refuses(port), "the port is closed")
        assert all(map(is_alive, both))
        go.touch()
        for connection in busy:
            with connection:
                answer = connection.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"connection: close" in answer
        assert (errors_of(server), server.process.returncode) == ("", 0)


def test_ctrl_c_at_a_terminal_reaches_only_the_supervisor(folder: Path) -> None:
    with served(*two(), cwd=folder) as server:
        assert all(os.getpgid(pid) == os.getsid(pid) == pid for pid in children(server.pid))
        assert os.getpgid(server.pid) == os.getpgid(0)


def test_second_signal_ends_all_at_once(folder: Path, family: list[int]) -> None:
    with served(*two("--shutdown-timeout", "3600"), cwd=folder) as server:
        port = port_of(server)
        with socket.create_connection(("127.0.0.1", port), 20) as busy:
            busy.sendall(b"GET /stall HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until((folder / "stalled").exists, "a handler blocks the loop of one process")
            family += descendants(server.pid)
            server.process.terminate()
            wait_until(lambda: len(children(server.pid)) == 1, "the other has drained")
            server.process.terminate()
            assert server.process.wait(30) == 128 + signal.SIGTERM


def test_process_that_does_not_end_is_killed(folder: Path, family: list[int]) -> None:
    impatient = "import tinysvc.server.supervisor\ntinysvc.server.supervisor.LATE = 0.2\n"
    run = RUN.replace("workers=2,", "workers=2, shutdown_timeout=0,", 1)
    (folder / "service.py").write_text(impatient + SERVICE + run)
    with served("service.py", cwd=folder) as server, socket.create_connection(("127.0.0.1", port_of(server)), 20) as s:
        s.sendall(b"GET /stall HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until((folder / "stalled").exists, "a handler blocks the loop of one process")
        family += descendants(server.pid)
        server.process.terminate()
        assert re.search(r"\]: killed, because they did not end in time: [0-9]+\n", errors_of(server))
        assert server.process.returncode == 0


def test_processes_drain_when_the_supervisor_is_killed(folder: Path, family: list[int]) -> None:
    """Running requests get their response, and the port is free afterwards."""
    with served(*tinysvc(str(SUPPORT / "faulty.py"), "--workers", "2"), cwd=folder) as server:
        started, go, port = folder / "started", folder / "go", port_of(server)
        with socket.create_connection(("127.0.0.1", port), 20) as busy:
            busy.sendall(f"GET /io-wait?started={started}&go={go} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(started.exists, "the handler runs")
            family += descendants(server.pid)
            server.process.kill()
            wait_until(lambda: refuses(port), "the port is closed")
            go.touch()
            assert busy.recv(4096).startswith(b"HTTP/1.1 200 ")
        with socket.create_server(("127.0.0.1", port)):
            pass


STARTS = {
    "import": "import pathlib, time\npathlib.Path('now').touch()\ntime.sleep(3600)\n",
    "resource": (
        "import asyncio, pathlib\nfrom tinysvc import io_resource, io_route\n@io_resource\nasync def data():\n"
        "    pathlib.Path('now').touch()\n    await asyncio.sleep(3600)\n@io_route('/')\nasync def f(data): ...\n"
    ),
    "worker": (
        "import pathlib, time\nfrom tinysvc import cpu_resource, cpu_route\n@cpu_resource\ndef model():\n"
        "    pathlib.Path('now').touch()\n    time.sleep(3600)\n@cpu_route('/')\ndef f(model): ...\n"
    ),
}


@pytest.mark.parametrize("phase", STARTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signal_during_the_start_ends_all(folder: Path, family: list[int], phase: str, number: signal.Signals) -> None:
    (folder / "slow.py").write_text(STARTS[phase])
    with command(*tinysvc("slow.py", "--workers", "2"), cwd=folder) as process:
        wait_until((folder / "now").exists, "they start")
        family += descendants(process.pid)
        process.send_signal(number)
        assert process.wait(30) == (0 if number != signal.SIGKILL else -number)


# In the author's program


def test_run_starts_several_processes(folder: Path) -> None:
    atexit = "\nimport atexit\natexit.register(lambda: print('the end of', os.getpid()))\n"
    after = "    print('after')\n"
    (folder / "service.py").write_text(SERVICE + atexit + RUN + after)
    with served("service.py", cwd=folder) as server:
        both = wait_for_both(server)
        os.kill(both[0], signal.SIGTERM)
        both = wait_for_both(server, without=both[0])
        assert server.get("/worker").json() in {worker for pid in both for worker in workers_below(pid)}
        server.process.terminate()
        out, _ = server.process.communicate(timeout=30)
        assert (server.process.returncode, out) == (0, f"after\nthe end of {server.pid}\n")


def test_program_with_threads_is_warned(folder: Path) -> None:
    thread = "\nimport threading\nthreading.Thread(target=threading.Event().wait, name='mine', daemon=True).start()\n"
    (folder / "service.py").write_text(SERVICE + RUN.replace(":\n", f":{thread}".replace("\n", "\n    ") + "\n", 1))
    with served("service.py", cwd=folder) as server:
        wait_for_both(server)
        server.process.terminate()
        assert re.fullmatch(
            r"WARNING tinysvc\[[0-9]+\]: threads already run \(mine\): they do not exist in the server processes, .*\n",
            errors_of(server),
        )
        assert server.process.returncode == 0


def test_log_configuration_of_the_service_is_used(folder: Path) -> None:
    """Also in a process that was forked after the supervisor had configured its log."""
    own = "import logging\nlogging.basicConfig(format='mine: %(message)s', level='INFO')\nlogging.info('loaded')\n"
    (folder / "service.py").write_text(own + SERVICE.partition("@cpu_route")[0])
    with served(*two(), cwd=folder) as server:
        first = children(server.pid)[0]
        os.kill(first, signal.SIGKILL)
        wait_for_both(server, without=first)
        server.process.terminate()
        assert errors_of(server).count("mine: loaded\n") == 3
