"""Run the console blocks of the docs in a shell: the output must contain the lines below each "$ " line.

A server whose command ends with "&" runs until the page ends; another one until the next server starts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from commands import Served, served

ADDRESS = "http://127.0.0.1:8000"
"""The address of a server without --port in the docs; the tests use free ports."""

TYPED = re.compile(r"^\$ (.*)$", re.MULTILINE)
COMMANDS = r"proto|routes|openapi|settings|client|bench|new|version|help|(cancel-|retry-)?job\b|jobs (?!\S*[./])"
"""Flags with which `python -m tinysvc` does not serve; `--jobs` with a store serves, with a state it lists."""
SERVES = re.compile(rf"python -m tinysvc (?!.*--({COMMANDS}))(.*)")

HAS_CURL = shutil.which("curl") is not None


class Terminal:
    """The terminal of one page."""

    def __init__(self, folder: Path, background: ExitStack) -> None:
        self._folder = folder
        self._background = background
        self._foreground = background.enter_context(ExitStack())
        self._urls: dict[str, str] = {}
        """The address of each server: as the page has it, and the real one."""

    def type(self, block: str) -> None:
        _, *typed = TYPED.split(block)
        for command, shown in zip(typed[::2], typed[1::2], strict=True):
            said = self._serve(command) if SERVES.match(command) else self._run(command)
            self._compare(command, shown.strip("\n").splitlines(), said)

    def _serve(self, command: str) -> str:
        self._foreground.close()
        arguments = shlex.split(self._real(command.removesuffix("&")))[1:]
        documented = ADDRESS
        if "--port" in arguments:
            place = arguments.index("--port")
            documented = f"http://127.0.0.1:{arguments[place + 1]}"
            del arguments[place : place + 2]
        documented_rpc = ""
        if "--grpc" in arguments:
            place = arguments.index("--grpc") + 1
            documented_rpc, arguments[place] = f"127.0.0.1:{arguments[place]}", "127.0.0.1:0"
        servers = self._background if command.endswith("&") else self._foreground
        server: Served = servers.enter_context(served(*arguments, "--port", "0", cwd=self._folder))
        self._urls[documented] = server.url
        for line in server.lines if documented_rpc else ():
            if line.startswith("gRPC at "):
                self._urls[documented_rpc] = line.removeprefix("gRPC at ")
        return self._documented("\n".join(server.lines))

    def _run(self, command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", self._real(command.replace("curl ", "curl -sS "))],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "PATH": path},
            check=False,
        )
        return self._documented((done.stdout + done.stderr).replace("\r", ""))

    def _real(self, text: str) -> str:
        for documented, real in self._urls.items():
            text = text.replace(documented, real)
        return text

    def _documented(self, text: str) -> str:
        for documented, real in self._urls.items():
            text = text.replace(real, documented)
        return text

    def _compare(self, command: str, shown: list[str], said: str) -> None:
        """Assert that the output contains the shown lines in this order; "..." matches anything."""
        rest = said.splitlines()
        for line in shown:
            pattern = re.escape(line).replace(r"\.\.\.", ".*")
            found = [number for number, each in enumerate(rest) if re.fullmatch(pattern, each)]
            assert found or line == "...", f"$ {command}\nexpected: {line}\noutput:\n{said}"
            rest = rest[found[0] + 1 :] if line != "..." else rest


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    with ExitStack() as background:
        yield Terminal(folder, background)
