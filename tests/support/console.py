"""The console blocks of the docs, typed into a shell: what stands below a line that begins with "$ " must be said."""

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
"""Where the docs say that a server listens; here it is on a free port."""

TYPED = re.compile(r"^\$ (.*)$", re.MULTILINE)
SERVES = re.compile(r"python -m tinysvc (?!.*--(routes|openapi|settings|bench|new|version|help))(.*)")

HAS_CURL = shutil.which("curl") is not None


class Terminal:
    """One page's: the server that was started last runs until the next, or until the page ends."""

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
        """Each line that is shown is said, in this order; "..." stands for anything."""
        rest = said.splitlines()
        for line in shown:
            pattern = re.escape(line).replace(r"\.\.\.", ".*")
            found = [number for number, each in enumerate(rest) if re.fullmatch(pattern, each)]
            assert found or line == "...", f"$ {command}\nshows: {line}\nsaid:\n{said}"
            rest = rest[found[0] + 1 :] if line != "..." else rest


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    with ExitStack() as servers:
        yield Terminal(folder, servers)
