"""signals.py: SIGTERM and SIGINT drain, a second one ends the server at once, SIGHUP reloads the certificates."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from commands import HELLO, Served, command, served, tinysvc
from paths import SUPPORT
from system import descendants, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hello.py").write_text(HELLO)
    return tmp_path


# Drain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_exits_0(folder: Path, number: signal.Signals) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py")), cwd=folder) as server, httpx.Client(timeout=20) as client:
        started, go = folder / "started", folder / "go"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as busy:
            target = f"/work?started={started}&go={go}&done={folder / 'done'}"
            busy.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            wait_until(started.exists, "the job runs")
            client.get(server.url + "/livez")  # an idle keep-alive connection must not delay the drain
            server.process.send_signal(number)

            def refuses() -> bool:
                try:
                    socket.create_connection((host, int(port)), 20).close()
                except (
                    ConnectionRefusedError,
                    ConnectionResetError,
                ):  # reset: the listening socket closed while we waited
                    return True
                return False

            wait_until(refuses, "the port is closed")
            go.touch()
            answer = b""
            while piece := busy.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 204 ")
            assert b"connection: close" in answer
        assert server.process.wait(30) == 0


REGISTERS = """
import asyncio
import signal
from tinysvc import io_resource, io_route

def register(way: str) -> None:
    loop = asyncio.get_running_loop()
    if way.startswith("SIG_"):
        signal.signal(signal.SIGTERM, getattr(signal, way))
    else:
        loop.add_signal_handler(signal.SIGTERM, print, "library handler", "too")
    if way == "removed":
        assert loop.remove_signal_handler(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert loop.remove_signal_handler(signal.SIGUSR1)

@io_resource
async def library():
    if PLACE == "resource":
        register(WAY)
    yield "open"
    print("closed")

@io_route("/")
async def root(library: str) -> None:
    if PLACE == "handler":
        register(WAY)
"""


@pytest.mark.parametrize(
    ("place", "way"),
    [
        ("resource", "added"),
        ("resource", "removed"),
        ("resource", "SIG_IGN"),
        ("resource", "SIG_DFL"),
        ("handler", "added"),
        ("handler", "removed"),
    ],
)
def test_sigterm_drains_although_a_library_handles_it(folder: Path, place: str, way: str) -> None:
    (folder / "registers.py").write_text(f"PLACE, WAY = {place!r}, {way!r}\n{REGISTERS}")
    with served(*tinysvc("registers.py"), cwd=folder) as server:
        assert server.get("/").status_code == 204
        server.process.terminate()
        output, errors = server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert "closed\n" in output
    assert ("library handler too\n" in output) == (way == "added")
    assert ("a resource set SIGTERM to SIG_IGN or SIG_DFL" in errors) == way.startswith("SIG_")


def test_second_signal_ends_the_server_at_once(folder: Path) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py"), "--shutdown-timeout", "3600"), cwd=folder) as server:
        started = folder / "started"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as busy:
            target = f"/work?started={started}&go=/nowhere&done=/nowhere"
            busy.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            wait_until(started.exists, "the job runs")
            family = set(descendants(server.pid))
            with socket.create_connection((host, int(port)), 20) as idle:
                server.process.terminate()
                assert idle.recv(1) == b""  # the drain has begun
            assert server.process.stderr is not None
            assert any(
                "waiting for the requests of 1 connections, for at most 3600 s" in line
                for line in server.process.stderr
            )
            server.process.terminate()
            assert server.process.wait(30) == 128 + signal.SIGTERM
        wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family), "all processes have ended", 2)


def test_kill_9_leaves_no_process(folder: Path) -> None:
    with served(*tinysvc(str(SUPPORT / "faulty.py")), cwd=folder) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 20) as busy:
            busy.sendall(b"GET /wait?started=%b&go=/nowhere HTTP/1.1\r\nHost: x\r\n\r\n" % bytes(folder / "started"))
            wait_until((folder / "started").exists, "the job runs")
            family = set(descendants(server.pid))
            assert len(family) == 3
            server.process.kill()
            wait_until(
                lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in family), "all processes have ended", 2
            )


def test_workers_do_not_hold_the_listening_socket(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        port = int(server.url.rpartition(":")[2])
        inodes = {
            line.split()[9]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        }
        assert inodes
        for pid in descendants(server.pid):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                assert not any(f"socket:[{inode}]" == os.readlink(entry) for inode in inodes)


def test_signal_during_the_start_ends_the_server(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import time, pathlib\nfrom tinysvc import cpu_resource, cpu_route\n"
        "@cpu_resource\ndef model():\n    pathlib.Path('opening').touch()\n    time.sleep(3600)\n"
        "@cpu_route('/')\ndef f(model) -> None: ...\n"
    )
    with command(*tinysvc("slow.py"), cwd=folder) as process:
        wait_until((folder / "opening").exists, "the worker starts")
        process.terminate()
        assert process.wait(10) == 0


# SIGHUP


def test_sighup_without_certificates_changes_nothing(folder: Path) -> None:
    with served(*tinysvc("hello.py"), cwd=folder) as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.process.stderr
        assert next(iter(server.process.stderr)) == (
            "INFO tinysvc: SIGHUP reloads the certificates; this server has none\n"
        )
        assert server.get("/").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("before", ["SIG_DFL", "SIG_IGN"])
def test_closed_terminal_drains_the_server(folder: Path, workers: str, before: str) -> None:
    """Except under nohup, which ignores SIGHUP before the server starts."""
    main = (
        f"import os, runpy, signal, sys; signal.signal(signal.SIGHUP, signal.{before}); "
        "os.login_tty(int(sys.argv.pop(1))); sys.stdout = open('output', 'w'); "
    )
    (folder / "output").touch()
    ours, theirs = pty.openpty()
    arguments = [sys.executable, "-c", main + "runpy.run_module('tinysvc', run_name='__main__')", str(theirs)]
    process = subprocess.Popen(
        [*arguments, *tinysvc("hello.py", "--workers", workers)[2:]], cwd=folder, pass_fds=[theirs]
    )
    try:
        os.close(theirs)
        listening = re.compile("listening on (http:[^ \n]*)")
        wait_until(lambda: listening.search((folder / "output").read_text()), "the server listens")
        os.kill(process.pid, signal.SIGHUP)  # the terminal is open: no reason to end
        url = listening.findall((folder / "output").read_text())[0]
        assert httpx.get(url, timeout=20).status_code == 200
        os.close(ours)
        if before == "SIG_IGN":
            assert httpx.get(url, timeout=20).status_code == 200
            process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


SIGNALLED = """
import asyncio, pathlib, time
from collections.abc import AsyncIterator, Iterator
from tinysvc import Event, cpu_route, io_route

@cpu_route("/slow", methods=["POST"])
def slow() -> str:
    pathlib.Path("begun").touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return "done"

@io_route("/events")
async def events() -> AsyncIterator[Event]:
    while True:
        yield Event("tick")
        await asyncio.sleep(3600)

@io_route("/lines")
async def lines() -> AsyncIterator[dict]:
    while True:
        yield {"tick": 1}
        await asyncio.sleep(3600)

def forever() -> None:
    pathlib.Path("begun").touch()
    while True:
        time.sleep(0.01)

async def forever_on_the_loop() -> None:
    pathlib.Path("begun").touch()
    await asyncio.sleep(3600)

@io_route("/no-events")
async def no_events() -> AsyncIterator[Event]:
    await forever_on_the_loop()
    yield Event("tick")

@io_route("/no-lines")
async def no_lines():
    await forever_on_the_loop()
    yield {"tick": 1}

@io_route("/no-lines-of-a-thread")
def no_lines_of_a_thread() -> Iterator[dict]:
    forever()
    yield {"tick": 1}

@io_route("/one-line-of-a-thread")
def one_line_of_a_thread() -> Iterator[dict]:
    yield {"tick": 1}
    forever()

@cpu_route("/no-cpu-lines")
def no_cpu_lines() -> Iterator[dict]:
    forever()
    yield {"tick": 1}

@cpu_route("/no-cpu-events")
def no_cpu_events() -> Iterator[Event]:
    forever()
    yield Event("tick")

@cpu_route("/cpu-lines")
def cpu_lines() -> Iterator[dict]:
    while True:
        yield {"tick": 1}
        time.sleep(3600)
"""


KINDS_OF_SERVICE = pytest.mark.parametrize("options", [(), ("--workers", "2"), ("--reload",)], ids=" ".join)


def signal_all(server: Served, number: int) -> None:
    for pid in [*descendants(server.pid), server.pid]:
        with suppress(ProcessLookupError):  # a drain has begun: idle processes end
            os.kill(pid, number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@KINDS_OF_SERVICE
def test_signal_to_every_process_drains(number: int, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", *options), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(httpx.post, server.url + "/slow", timeout=60)
        wait_until((tmp_path / "begun").exists, "the job runs")
        signal_all(server, number)
        (tmp_path / "go").touch()
        assert answer.result().text == "done"
        assert server.process.wait(30) == 0


@KINDS_OF_SERVICE
def test_sighup_to_every_process_ends_no_process_and_no_job(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", *options), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(httpx.post, server.url + "/slow", timeout=60)
        wait_until((tmp_path / "begun").exists, "the job runs")
        family = descendants(server.pid)
        signal_all(server, signal.SIGHUP)
        assert server.process.stderr
        assert "SIGHUP reloads the certificates" in server.process.stderr.readline()
        (tmp_path / "go").touch()
        assert answer.result().text == "done"
        assert httpx.post(server.url + "/slow", timeout=60).text == "done"
        assert family.keys() <= descendants(server.pid).keys()
        server.process.terminate()
        assert {line.split()[0] for line in server.process.communicate(timeout=30)[1].splitlines()} <= {"INFO"}
        assert server.process.returncode == 0


@KINDS_OF_SERVICE
def test_stopped_time_does_not_count_for_deadlines(options: tuple[str, ...], tmp_path: Path) -> None:
    """Running and queued jobs keep the time that they had left when all processes were stopped."""
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", "--cpu-timeout", "4", *options), cwd=tmp_path) as server,
        ThreadPoolExecutor(4) as threads,
    ):
        answers = [threads.submit(httpx.post, server.url + "/slow", timeout=60) for _ in range(4)]
        wait_until((tmp_path / "begun").exists, "a job runs")
        family = descendants(server.pid)
        signal_all(server, signal.SIGSTOP)
        time.sleep(5)  # longer than the deadlines
        signal_all(server, signal.SIGCONT)
        time.sleep(0.5)  # a late job would be killed by now
        (tmp_path / "go").touch()
        assert [answer.result().text for answer in answers] == ["done"] * 4
        assert family.keys() <= descendants(server.pid).keys()
        server.process.terminate()
        assert server.process.wait(30) == 0


PATIENT = """
if __name__ == "__main__":
    import tinysvc, tinysvc.server.reload, tinysvc.server.supervisor

    tinysvc.server.supervisor.LATE = tinysvc.server.reload.LATE = 0.2
    tinysvc.run(__name__, port=0, cpu_workers=2, shutdown_timeout=4, **OPTIONS)
"""


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"reload": True}], ids=str)
def test_stopped_time_does_not_count_for_a_drain(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED + PATIENT.replace("OPTIONS", repr(options)))
    with served("service.py", cwd=tmp_path) as server, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx.post, server.url + "/slow", timeout=60)
        wait_until((tmp_path / "begun").exists, "the job runs")
        server.process.terminate()
        address = server.url.removeprefix("http://").split(":")
        wait_until(lambda: refuses(address[0], int(address[1])), "the drain begins")
        signal_all(server, signal.SIGSTOP)
        time.sleep(5)  # longer than shutdown_timeout
        signal_all(server, signal.SIGCONT)
        time.sleep(0.5)
        (tmp_path / "go").touch()
        assert answer.result().text == "done"
        assert server.process.wait(30) == 0


def refuses(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


@pytest.mark.parametrize("path", ["/events", "/lines", "/cpu-lines", "/one-line-of-a-thread"])
@pytest.mark.parametrize("options", [(), ("--compress",)], ids=["plain", "compressed"])
def test_drain_ends_endless_streams_without_an_error(path: str, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SIGNALLED)
    long = ("--shutdown-timeout", "3600", *options)
    with (
        served(*tinysvc("service.py", *long), cwd=tmp_path) as server,
        httpx.stream("GET", server.url + path, timeout=30) as response,
    ):
        pieces = response.iter_bytes()
        assert b"tick" in next(pieces)
        server.process.terminate()
        assert list(pieces) == []  # and no error
        assert server.process.wait(30) == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/no-events", 200),
        ("/no-cpu-events", 200),
        ("/no-lines", 503),
        ("/no-lines-of-a-thread", 503),
        ("/no-cpu-lines", 503),
    ],
)
def test_drain_does_not_wait_for_the_first_item_of_a_stream(path: str, status: int, tmp_path: Path) -> None:
    """An EventSource reconnects after an empty stream, and gives up after a 503."""
    (tmp_path / "service.py").write_text(SIGNALLED)
    with (
        served(*tinysvc("service.py", "--shutdown-timeout", "3600"), cwd=tmp_path) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        answer = threads.submit(httpx.get, server.url + path, timeout=60)
        wait_until((tmp_path / "begun").exists, "the generator runs")
        server.process.terminate()
        assert (answer.result().status_code, answer.result().headers["connection"]) == (status, "close")
        assert server.process.wait(30) == 0
