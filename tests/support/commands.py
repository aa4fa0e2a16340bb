"""tinysvc as a user starts it: a command, its output, its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

HELLO = """
from tinysvc import cpu_route, io_route

@io_route("/")
async def root() -> dict:
    return {"from": __name__}

@cpu_route("/pid")
def pid() -> int:
    import os
    return os.getpid()
"""


class Served:
    """A tinysvc command that listens."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process = process
        self.lines = lines
        self.url = lines[-1].removeprefix("listening on ").partition(" ")[0]
        self.pid = process.pid

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=20)


@contextmanager
def command(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def served(*arguments: str, cwd: Path, **variables: str) -> Iterator[Served]:
    with command(*arguments, cwd=cwd, **variables) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("listening on "):
                break
        else:
            process.wait()
            assert process.stderr is not None
            pytest.fail(f"the server does not listen: {process.stderr.read()}")
        yield Served(process, lines)


def failed(*arguments: str, cwd: Path, **variables: str) -> tuple[int, str]:
    """Return the exit status and the standard error of a command that ends by itself."""
    with command(*arguments, cwd=cwd, **variables) as process:
        _, errors = process.communicate(timeout=30)
        return process.returncode, errors


def tinysvc(target: str, *arguments: str) -> tuple[str, ...]:
    return ("-m", "tinysvc", target, "--port", "0", "--cpu-workers", "2", *arguments)


def run_program(program: str, folder: Path) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a program's text, which runs as the main module."""
    guarded = 'if __name__ == "__main__":\n' + textwrap.indent(textwrap.dedent(program), "    ")
    (folder / "program.py").write_text(guarded)
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr
