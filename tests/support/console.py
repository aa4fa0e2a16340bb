"""Run the console blocks of the docs in a shell: the output must contain the lines below each "$ " line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from commands import Served, served

ADDRESS = "http://127.0.0.1:8000"
"""The address of servers in the docs; the tests use a free port."""

TYPED = re.compile(r"^\$ (.*)$", re.MULTILINE)
SERVES = re.compile(r"python -m tinysvc (?!.*--(routes|openapi|settings|bench|new|version|help))(.*)")

HAS_CURL = shutil.which("curl") is not None


class Terminal:
    """The terminal of one page. A server runs until the next one starts, or until the page ends."""

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        self._folder = folder
        self._servers = servers
        self._server: Served | None = None

    def type(self, block: str) -> None:
        _, *typed = TYPED.split(block)
        for command, shown in zip(typed[::2], typed[1::2], strict=True):
            said = self._serve(command) if SERVES.match(command) else self._run(command)
            self._compare(command, shown.strip("\n").splitlines(), said)

    def _serve(self, command: str) -> str:
        self._servers.close()
        arguments = command.split()[1:]
        self._server = self._servers.enter_context(served(*arguments, "--port", "0", cwd=self._folder))
        return "\n".join(self._server.lines).replace(self._server.url, ADDRESS)

    def _run(self, command: str) -> str:
        url = self._server.url if self._server else ADDRESS
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", command.replace("curl ", "curl -sS ").replace(ADDRESS, url)],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=50,
            env={**os.environ, "PATH": path},
            check=False,
        )
        return (done.stdout + done.stderr).replace("\r", "").replace(url, ADDRESS)

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
    with ExitStack() as servers:
        yield Terminal(folder, servers)
