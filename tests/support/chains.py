"""Chains of three services, each a process with workers of its own: chain_first.py, chain_second.py, chain_third.py."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from chain_marks import FOLDER
from commands import Served, served
from system import is_alive, wait_until

SUPPORT = Path(__file__).parent


class Chain:
    """The running services, and the files that they write."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self.folder = folder
        self._processes = processes
        self.running: dict[str, Served] = {}

    def start(self, name: str, *options: str, port: int = 0, as_name: str = "") -> Served:
        """Serve chain_<name>.py; a second replica has another `as_name`."""
        file = str(SUPPORT / f"chain_{name}.py")
        command = ("-m", "tinysvc", file, "--port", str(port), "--cpu-workers", "1", *options)
        started = self._processes.enter_context(served(*command, cwd=self.folder, **{FOLDER: str(self.folder)}))
        self.running[as_name or name] = started
        return started

    @property
    def url(self) -> str:
        return self.running["first"].url

    def post(self, path: str, service: str = "first") -> httpx.Response:
        return httpx.post(self.running[service].url + path, timeout=30)

    @contextmanager
    def asking(self, path: str, method: str = "POST", *fields: str) -> Iterator[socket.socket]:
        """A connection to the first service on which this request was sent; the end of the block disconnects it."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", "Content-Length: 0", *fields])
            client.sendall(f"{head}\r\n\r\n".encode())
            yield client

    def is_marked(self, name: str) -> bool:
        return (self.folder / name).exists()

    def marked(self, name: str) -> str:
        """The text of a file, when it is there."""
        wait_until(lambda: self.is_marked(name), f"{name} is marked")
        return (self.folder / name).read_text()

    def count(self, name: str) -> int:
        return (self.folder / name).read_text().count("\n") if self.is_marked(name) else 0

    def kill(self, name: str) -> None:
        self.running[name].process.kill()
        self.running[name].process.wait()


@contextmanager
def chain_of_three(folder: Path, third: str = "", **options: list[str]) -> Iterator[Chain]:
    """Start the services; `third`: the addresses of the last one, if it is not to be started here."""
    with ExitStack() as processes:
        chain = Chain(folder, processes)
        addresses = third or chain.start("third", *options.get("third", ())).url
        second = chain.start("second", "--services", f"chain_third={addresses}", *options.get("second", ()))
        services = f"chain_second={second.url} chain_third={addresses}"
        chain.start("first", "--services", services, *options.get("first", ()))
        yield chain


def problem_of(response: httpx.Response) -> tuple[int, str]:
    """The status, and the type of the problem document."""
    document: dict[str, Any] = json.loads(response.content)
    return response.status_code, str(document["type"]).removeprefix("urn:tinysvc:")


def wait_until_dead(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), f"process {pid} is dead")
