"""stacks.py: the stacks of a server and of its workers, read by another process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Served, served, tinysvc
from tinysvc.cli import stacks
from tinysvc.cli.stacks import stacks_of
from tinysvc.core.errors import ConfigurationError

SERVICE = """
import os, time
from tinysvc import cpu_route, io_route

@cpu_route("/wait")
def waits_in_a_worker() -> str:
    time.sleep(60)
    return ""

@io_route("/hold")
async def holds_the_loop() -> str:
    time.sleep(60)
    return ""
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py"), cwd=tmp_path) as server:
        yield server


def until_shown(pid: int, wanted: str) -> str:
    end = time.monotonic() + 30
    while wanted not in (text := stacks_of(pid)):
        assert time.monotonic() < end, text
    return text


def test_worker_and_loop_that_are_busy_are_shown(server: Served) -> None:
    requests = []
    for path, function in (("/wait", "in waits_in_a_worker"), ("/hold", "in holds_the_loop")):
        program = f"import urllib.request as r; r.urlopen({server.url + path!r})"
        requests.append(subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL))
        text = until_shown(server.pid, function)
    for request in requests:
        request.kill()
        request.wait()
    kinds = re.findall(r"^(\w[\w ]*) \d+$", text, re.MULTILINE)
    assert kinds == ["server process", "forkserver", "worker", "worker"]
    assert "in waits_in_a_worker" in text


def test_command_prints_one_worker(server: Served) -> None:
    pid = re.findall(r"^worker (\d+)$", stacks_of(server.pid), re.MULTILINE)[0]
    done = subprocess.run(
        [sys.executable, "-m", "tinysvc", "--stacks", pid], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith(f"worker {pid}\nCurrent thread 0x")
    assert "server process" not in done.stdout


def test_stopped_process_is_named(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "DUMP_LIMIT", 0.2)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert stacks_of(server.pid).startswith(f"server process {server.pid} wrote nothing within 0.2 s")
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_process_of_another_program_gets_no_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with pytest.raises(ConfigurationError, match=f"process {other.pid} is no process of tinysvc"):
            stacks_of(other.pid)
        assert other.communicate(b"\n")
        assert other.returncode == 0


def test_missing_process_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tinysvc", "--stacks", str(2**22 - 1)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (2, f"tinysvc: there is no process {2**22 - 1}\n")
