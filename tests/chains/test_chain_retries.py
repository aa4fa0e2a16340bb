"""A chain of three services in which all calls may be repeated: only the layer next to the failure repeats them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from chains import chain_of_three, problem_of
from commands import served

CIRCLE = """
import os
from tinysvc import call, io_route

@io_route("/turn", methods=["POST"], idempotent=True)
async def turn() -> str:
    with open(os.environ["TURNS"], "a") as file:
        file.write("x")
    return await call(turn)
"""


@contextmanager
def closes_unanswered() -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads a request and closes the connection: its address, and the requests."""
    requests: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_only_the_layer_next_to_the_failure_repeats(tmp_path: Path) -> None:
    with closes_unanswered() as (address, requests), chain_of_three(tmp_path, third=address) as chain:
        assert problem_of(chain.post("/stuck-again?key=a")) == (502, "call-failed")
        assert 2 <= len(requests) <= 3
        assert chain.count("a.second") == 1


@pytest.mark.parametrize("status", [404, 500, 503, 504])
def test_status_of_the_callee_is_not_repeated(tmp_path: Path, status: int) -> None:
    with chain_of_three(tmp_path) as chain:
        response = chain.post(f"/status/{status}?key=a")
        assert response.status_code == {500: 502, 504: 502}.get(status, status)
        assert (chain.count("a"), chain.count("a.second")) == (1, 1)


def test_circle_of_services_ends_after_16_hops(tmp_path: Path) -> None:
    (tmp_path / "circle.py").write_text(CIRCLE)
    port = free_port()
    command = ("-m", "tinysvc", "circle.py", "--port", str(port), "--services", f"circle=http://127.0.0.1:{port}")
    with served(*command, cwd=tmp_path, TURNS=str(tmp_path / "turns")) as circle:
        response = httpx.post(f"{circle.url}/turn", timeout=30)
    assert (tmp_path / "turns").read_text() == 17 * "x"
    assert problem_of(response) == (508, "call-loop")
