"""Whole requests, from the socket to a worker and back."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import faulty
import service_jobs
from system import descendants, wait_until, workers_below
from tinysvc import (
    Request,
    Service,
    io_route,
)
from tinysvc.core.settings import Settings
from tinysvc.server.server import Server
from tinysvc.testing import serving


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving(faulty, shutdown_timeout=1.0, raise_errors=False) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def assert_healthy(client: httpx.Client) -> None:
    wait_until(lambda: client.get("/readyz").status_code == 200, "every worker is back")
    assert client.get("/cpu/1").json() == {"number": 1}


# Parameters and results


def test_io_and_cpu(client: httpx.Client) -> None:
    assert client.get("/io/7").json() == {"number": 7}
    assert client.get("/cpu/7").json() == {"number": 7}
    assert client.get("/lookup").text == "value"
    answer = client.post("/predict", json={"values": [1, 2.5], "name": "é"})
    assert answer.json() == {"score": 7.0, "name": "é"}


def test_parameters_of_every_place(client: httpx.Client) -> None:
    answer = client.post(
        "/everything/a%2Fb%20c?limit=9&flag=true",
        json={"x": 1, "y": 2},
        headers={"user-agent": "test", "cookie": "session=s1; other=2"},
    )
    assert answer.json() == {
        "method": "POST",
        "name": "a/b c",
        "point": {"x": 1, "y": 2},
        "agent": "test",
        "session": "s1",
        "limit": 9,
        "flag": True,
    }


def test_422_has_the_place_of_each_fault(client: httpx.Client) -> None:
    answer = client.post("/everything/n?limit=10&flag=maybe", json={"x": 1, "y": "b"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["place"] for error in answer.json()["errors"]] == ["$.y", "query.limit", "query.flag"]
    answer = client.post("/predict", json={"values": [1, 2, 3, "four"]})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"place": "$.values[3]", "detail": "Expected `float`, got `str`"}]
    assert client.get("/cpu/seven").json()["errors"] == [
        {"place": "path.number", "detail": "Expected `int`, got 'seven'"}
    ]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"values": [1]}', "application/json", 200),
        (b'{"values": [1]}', "application/vnd.x+json; charset=utf-8", 200),
        (b'{"values": [1]}', "text/plain", 415),
        (b'{"values": [1', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"values": [1e999]}', "application/json", 422),
        (b'{"name": "\xff"}', "application/json", 400),
        (b"\xff\xfe{\x00}\x00", "application/json", 400),
        (b"", "application/json", 422),
    ],
)
def test_body_that_is_not_json(client: httpx.Client, content: bytes, content_type: str, status: int) -> None:
    answer = client.post("/predict", content=content, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text


def test_raw_body_and_response(client: httpx.Client) -> None:
    answer = client.post("/raw", content=b"abc\x00")
    assert (answer.content, answer.headers["x-method"], answer.headers["content-type"]) == (
        b"\x00cba",
        "POST",
        "text/x-reversed",
    )


def test_generator_in_a_worker_streams(client: httpx.Client) -> None:
    with client.stream("GET", "/stream/1000") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert list(answer.iter_lines())[-1] == '{"i":999}'
    assert client.get("/stream/0").content == b""


def test_stream_that_fails_is_cut_off(client: httpx.Client) -> None:
    answer = client.get("/early-failure")
    assert (answer.status_code, answer.json()["detail"]) == (418, "before the first word")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/late-failure")
    assert_healthy(client)


def test_methods(client: httpx.Client) -> None:
    assert client.put("/cpu/1").status_code == 405
    assert client.put("/cpu/1").headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.options("/predict").headers["allow"] == "OPTIONS, POST"
    head = client.head("/cpu/1")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "12", b"")
    assert client.get("/nowhere").status_code == 404


def test_health_checks(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "pools": {"default": {"workers": 2, "ready": 2, "queued": 0}},
    }


# Faults

FAULTS = [
    ("/fault/raise", 500, "a secret"),
    ("/fault/hang", 504, "ran past its deadline of 0.2 s"),
    ("/fault/exit", 500, "exited with status 3"),
    ("/fault/segfault", 500, "SIGSEGV"),
    ("/fault/unencodable", 500, "object"),
    ("/fault/unpicklable", 500, "function"),
    ("/fault/picky", 500, "jobs.Picky: picky"),
    ("/fault/system-exit", 500, "SystemExit: 7"),
    ("/fault/garbage", 500, "was killed: it sent"),
    ("/fault/recursion", 500, "RecursionError"),
    ("/fault/memory", 500, "MemoryError"),
    ("/fault/header", 500, "x-a"),
    ("/io-fault/raise", 500, "a secret"),
    ("/io-fault/cancelled", 500, "CancelledError"),
    ("/io-fault/system-exit", 500, "SystemExit: 7"),
    ("/io-fault/keyboard-interrupt", 500, "KeyboardInterrupt"),
    ("/io-fault/unencodable", 500, "object"),
    ("/io-fault/header", 500, "x-a"),
]


@pytest.mark.parametrize(("path", "status", "logged"), FAULTS)
def test_failed_handler_gets_500_and_a_log_line(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, path: str, status: int, logged: str
) -> None:
    answer = client.get(path, headers={"x-request-id": "3f2a-1"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 500:
        assert "detail" not in answer.json()  # the inside stays inside
        assert "secret" not in answer.text
    assert_healthy(client)
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == 1, [record.getMessage() for record in records]
    assert records[0].getMessage().startswith(f"GET {path} (request 3f2a-1): ")
    assert logged in records[0].getMessage()
    assert "src/tinysvc" not in records[0].getMessage() or "header" in path


def test_dead_worker_is_worker_died(client: httpx.Client) -> None:
    assert client.get("/fault/exit").json()["type"] == "urn:tinysvc:worker-died"


def test_http_error_of_a_worker_is_the_response(client: httpx.Client) -> None:
    answer = client.get("/fault/http-error")
    assert (answer.status_code, answer.json()["detail"], answer.headers["x-why"]) == (
        409,
        "conflict in a worker",
        "test",
    )


@io_route("/healthy")
async def one() -> None: ...


@io_route("/leaves")
async def leaves() -> AsyncIterator[str]:
    yield "a"
    raise SystemExit(7)


def test_system_exit_in_a_stream_does_not_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(leaves, one), raise_errors=False) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url}/leaves")
        assert httpx.get(f"{url}/healthy").is_success
    assert caplog.text.count("SystemExit: 7") == 1


@pytest.mark.parametrize("path", ["/fault/print", "/fault/signals"])
def test_odd_but_harmless(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    assert_healthy(client)


def test_forked_child_ends_with_its_worker(client: httpx.Client, tmp_path: Path) -> None:
    child = client.get("/fault/fork", params={"path": str(tmp_path / "child")}).json()["child"]
    assert_healthy(client)
    assert child in descendants(os.getpid())

    def end_a_worker() -> bool:
        """Either worker may take the request, and not only that of the child."""
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        assert client.get("/fault/fork-exit", params={"path": str(path)}).status_code == 500
        assert_healthy(client)
        return child not in descendants(os.getpid())

    wait_until(end_a_worker, "the child has ended with its worker")


# Many clients, and disconnects


@pytest.mark.asyncio
async def test_200_clients_get_their_own_responses(client: httpx.Client) -> None:
    async def user(number: int) -> list[int]:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        got = []
        for turn in range(6):
            kind = "cpu" if (number + turn) % 2 else "io"
            writer.write(f"GET /{kind}/{number * 100 + turn} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            got.append(json.loads(await reader.readexactly(length))["number"])
        writer.close()
        await writer.wait_closed()
        return got

    answers = await asyncio.gather(*(user(number) for number in range(200)))
    assert answers == [[number * 100 + turn for turn in range(6)] for number in range(200)]


def _send(url: httpx.URL, request: str) -> Any:
    import socket

    connection = socket.create_connection((url.host, url.port), 20)
    connection.sendall(request.encode())
    return connection


def test_disconnect_stops_a_get_job(client: httpx.Client, tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    before = set(workers_below(os.getpid()))
    connection = _send(client.base_url, f"GET /wait?started={started}&go={go} HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(started.exists, "the job runs")
    wait_until(lambda: client.get("/readyz").status_code == 200, "ready")
    connection.close()
    wait_until(lambda: set(workers_below(os.getpid())) != before, "its worker was replaced")
    assert_healthy(client)


def test_disconnect_does_not_stop_a_post_job(client: httpx.Client, tmp_path: Path) -> None:
    started, go, done = tmp_path / "started", tmp_path / "go", tmp_path / "done"
    before = set(workers_below(os.getpid()))
    target = f"/work?started={started}&go={go}&done={done}"
    connection = _send(client.base_url, f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    wait_until(started.exists, "the job runs")
    connection.close()
    assert client.get("/cpu/1").status_code == 200
    go.touch()
    wait_until(done.exists, "the job ran to its end")
    assert set(workers_below(os.getpid())) == before


# Options of a route


async def _held(request: Request, leave: asyncio.Event, ended: asyncio.Queue[str]) -> str:
    ended.put_nowait("called")
    try:
        await leave.wait()
    except asyncio.CancelledError:
        ended.put_nowait("cancelled")
        raise
    ended.put_nowait("finished")
    return ""


@pytest.mark.parametrize(
    ("method", "on_disconnect", "end"),
    [
        ("GET", None, "cancelled"),
        ("GET", "finish", "finished"),
        ("POST", None, "finished"),
        ("POST", "cancel", "cancelled"),
    ],
)
@pytest.mark.asyncio
async def test_on_disconnect_of_an_io_route(method: str, on_disconnect: Any, end: str) -> None:
    leave, ended = asyncio.Event(), asyncio.Queue[str]()

    @io_route("/", methods=[method], on_disconnect=on_disconnect)
    async def held(request: Request) -> str:
        return await _held(request, leave, ended)

    async with asyncio.timeout(20), Server(Service(held), Settings(port=0)).listening() as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await ended.get() == "called"
        writer.transport.abort()
        if end == "finished":
            async with httpx.AsyncClient() as others:
                for _ in range(3):  # meanwhile the server has seen it
                    assert (await others.get(f"{url}/livez")).status_code == 200
            leave.set()
        assert await ended.get() == end


@io_route("/small", methods=["POST"], max_body_size=5)
async def small(body: bytes) -> int:
    return len(body)


@io_route("/plain", methods=["POST"])
async def plain(body: bytes) -> int:
    return len(body)


@io_route("/big", methods=["POST"], max_body_size=1000)
async def big(body: bytes) -> int:
    return len(body)


def test_max_body_size_of_a_route_overrides_the_server_s() -> None:
    service = Service(small, plain, big, service_jobs.measure, max_body_size=100)
    with serving(service) as url, httpx.Client(base_url=url, timeout=20) as client:
        for path, limit in [("/small", 5), ("/plain", 100), ("/big", 1000), ("/measure", 7)]:
            for size, status in [(limit, 200), (limit + 1, 413), (200_000, 413)]:
                assert client.post(path, content=bytes(size)).status_code == status, (path, size)
                assert client.post(path, content=iter([bytes(size)])).status_code == status, (path, size)


@pytest.mark.asyncio
async def test_io_request_above_the_limit_gets_503_at_once() -> None:
    leave, ended = asyncio.Event(), asyncio.Queue[str]()

    @io_route("/held")
    async def held(request: Request) -> str:
        return await _held(request, leave, ended)

    server = Server(Service(held), Settings(port=0, max_io_requests=2))
    async with asyncio.timeout(20), server.listening() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        two = [asyncio.create_task(client.get("/held")) for _ in range(2)]
        assert [await ended.get(), await ended.get()] == ["called", "called"]
        refused = await client.get("/held")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await client.get("/livez")).status_code == 200
        leave.set()
        assert {(await task).status_code for task in two} == {200}
        assert (await client.get("/held")).status_code == 200
