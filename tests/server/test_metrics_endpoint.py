"""metrics_endpoint.py: a served service is scraped, on a port of its own, at a path and on a Unix socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from websockets.sync.client import connect

from commands import served, tinysvc
from scrapes import REQUESTS, Scrape, fetch, scrape
from system import wait_until
from tinysvc import HTTPError, Service, WebSocket, cpu_route, io_route
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.settings import Settings
from tinysvc.server.connections import Connections
from tinysvc.server.metrics_endpoint import connection_metrics
from tinysvc.server.server import Server
from tinysvc.server.sockets import metrics_line
from tinysvc.telemetry.instruments import OTHER
from tinysvc.testing import serving


@io_route("/items/{name}", methods=["GET", "POST"])
async def item(name: str) -> str:
    if name == "gone":
        raise HTTPError(410, "gone")
    if name == "wrong":
        raise KeyError(name)
    return name


@cpu_route("/double/{number}")
def double(number: int) -> int:
    if number == 13:
        os._exit(3)
    return 2 * number


@io_route("/stream")
async def stream() -> AsyncIterator[str]:
    for piece in "abc":
        yield piece
        await asyncio.sleep(0.01)


@io_route("/held")
async def held() -> AsyncIterator[str]:
    yield "begun"
    await asyncio.Event().wait()


@io_route("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for message in websocket:
        await websocket.send(message)


service = Service(item, double, stream, held, echo)


@pytest.mark.asyncio
async def test_requests_are_counted_by_their_template() -> None:
    server = Server(service, Settings(port=0, cpu_workers=1, metrics="127.0.0.1:0"))
    async with server.listening() as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/items/a", "/items/b", "/items/gone", "/items/wrong", "/double/4", "/stream"):
            await client.get(path)
        for _ in range(2):
            await client.post("/items/a")
        await client.head("/items/a")
        for number in range(20):
            await client.get(f"/unknown/{number}")
            await client.request("DELETE", f"/items/{number}")
        at = metrics_line(server.metrics_listeners).removeprefix("metrics at ").strip()
        found = Scrape((await client.get(at)).text)
    assert found.sum(REQUESTS, http_route="/items/{name}", http_request_method="GET") == 4
    assert found.sum(REQUESTS, http_route="/items/{name}", http_response_status_code="410", error_type="") == 1
    assert found.sum(REQUESTS, http_route="/items/{name}", error_type="KeyError") == 1
    assert found.sum(REQUESTS, http_route="/items/{name}", http_request_method="POST") == 2
    assert found.sum(REQUESTS, http_route="/items/{name}", http_request_method="HEAD") == 1
    assert found.sum(REQUESTS, http_route="/double/{number}", http_response_status_code="200") == 1
    assert found.sum(REQUESTS, http_route="", http_response_status_code="404") == 20
    assert found.sum(REQUESTS, http_route="", http_response_status_code="405") == 20
    assert found.values(REQUESTS, "http_route") == {path for path, _ in service.all_routes()} | {""}
    assert len([key for key in found.samples if key[0] == REQUESTS]) == 5 + 6  # a 200 of each route, and the others
    assert found.sum("http_server_request_duration_seconds_sum", http_route="/stream") >= 0.03
    assert found.sum("tinysvc_pool_jobs_total", outcome="ok", pool="default") == 1
    assert found.sum("tinysvc_pool_workers", pool="default") == 1
    assert found.sum("process_resident_memory_bytes") > 10_000_000


def test_messages_that_are_not_understood_are_counted() -> None:
    with serving(Service(item), metrics="/metrics") as url:
        for request in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"y" * 100_000),
        ):
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as sock:
                sock.sendall(request)
                assert sock.recv(100).startswith(b"HTTP/1.1 4")
        found = scrape(f"{url}/metrics")
    assert found.sum("tinysvc_refusals_total") == 3
    assert found.sum("tinysvc_refusals_total", http_response_status_code="431") == 1


def test_metrics_of_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "metrics.sock")
    with (
        serving(Service(item), metrics=f"unix:{path}") as url,
        httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://metrics") as client,
    ):
        httpx.get(f"{url}/items/a")
        assert Scrape(client.get("/metrics").text).sum(REQUESTS) == 1
        assert client.get("/other").status_code == 404
        assert client.post("/metrics").status_code == 405


def test_open_streams_and_sockets_are_seen_while_they_are_open() -> None:
    with serving(Service(held, echo), metrics="/metrics") as url:

        def now() -> tuple[float, float, float]:
            found = scrape(f"{url}/metrics")
            return (
                found.sum("tinysvc_streams"),
                found.sum("tinysvc_websockets"),
                found.sum("http_server_active_requests", http_request_method="GET"),
            )

        with httpx.stream("GET", f"{url}/held") as response, connect(f"ws{url[4:]}/echo") as websocket:
            pieces = response.iter_raw()
            next(pieces)
            websocket.send("hello")
            assert websocket.recv() == "hello"
            assert now() == (1, 1, 3)  # the scrape itself is a request, too
            del pieces
        wait_until(lambda: now() == (0, 0, 1), "the ends of both")
        found = scrape(f"{url}/metrics")
    assert found.sum(REQUESTS, http_route="/echo", http_response_status_code="101") == 1
    assert found.sum(REQUESTS, http_route="/held", http_response_status_code="200") == 1


@cpu_route("/slow", on_disconnect="cancel")
def slow() -> None:
    time.sleep(60)


def test_disconnect_is_counted_and_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(slow), cpu_workers=1, metrics="/metrics") as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{url}/slow", timeout=0.5)
        ends = "tinysvc_pool_worker_ends_total"
        wait_until(lambda: scrape(f"{url}/metrics").sum(ends, cause="abandoned") == 1, "the worker is killed")
        found = scrape(f"{url}/metrics")
    assert found.sum(REQUESTS, http_response_status_code="499") == 1
    assert found.sum("tinysvc_pool_jobs_total", outcome="abandoned") == 1
    assert "the handler failed" not in caplog.text


def test_scrape_works_while_blocking_handlers_hold_all_threads() -> None:
    release = threading.Event()

    @io_route("/blocked")
    def blocked() -> None:
        release.wait(30)

    with serving(Service(blocked), metrics="/metrics") as url, httpx.Client(timeout=30) as client:
        threads = [threading.Thread(target=httpx.get, args=(f"{url}/blocked",)) for _ in range(45)]
        for thread in threads:
            thread.start()
        wait_until(lambda: scrape(f"{url}/metrics").sum("http_server_active_requests") == 46, "45 requests")
        release.set()
        for thread in threads:
            thread.join()
        assert Scrape(client.get(f"{url}/metrics").text).sum(REQUESTS, http_route="/blocked") == 45


@pytest.mark.asyncio
async def test_missing_library_is_reported_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tinysvc.server.server.missing_library", lambda name: f"{name} is missing; pip install 'tinysvc[metrics]'"
    )
    with pytest.raises(ConfigurationError, match=r"metrics is /m, but prometheus_client is missing; pip install"):
        async with Server(Service(stream), Settings(port=0, metrics="/m")).listening():
            pass


@pytest.mark.asyncio
async def test_port_in_use_is_reported_at_start() -> None:
    async with Server(Service(stream), Settings(port=0, metrics="127.0.0.1:0")).listening() as url:
        taken = url.rpartition(":")[2]
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127.0.0.1:{taken}: another process does"):
            async with Server(Service(stream), Settings(port=0, metrics=f"127.0.0.1:{taken}")).listening():
                pass


# Several server processes

COUNTED = """
import os
from tinysvc import cpu_route, io_route

@io_route("/")
async def root() -> int:
    return os.getpid()

@cpu_route("/job")
def job() -> int:
    return os.getppid()
"""


@pytest.mark.usefixtures("nothing_left")
def test_counters_of_all_processes_add_up_and_never_fall(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    with served(*tinysvc("counted.py", "--workers", "2", "--metrics", "/metrics"), cwd=tmp_path) as server:
        at = f"{server.url}/metrics"
        pids = [int(fetch(f"{server.url}/")) for _ in range(16)]
        assert len(set(pids)) > 1
        for _ in range(4):
            fetch(f"{server.url}/job")
        for _ in range(4):  # by either process
            before = scrape(at)
            assert before.sum(REQUESTS, http_route="/") == 16
            assert before.sum("tinysvc_pool_jobs_total", outcome="ok") == 4
            assert before.sum("tinysvc_pool_workers") == 2
        os.kill(pids[-1], signal.SIGKILL)
        wait_until(lambda: has_two_processes(at), "the successor")
        after = scrape(at)
        assert after.sum(REQUESTS, http_route="/") == 16
        now = after.counters()
        assert [key for key, value in before.counters().items() if now[key] < value] == []
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def has_two_processes(url: str) -> bool:
    """Whether the service responds, and two processes have their worker: a dead one has no gauges."""
    try:
        return scrape(url).sum("tinysvc_pool_workers", state="idle") == 2
    except OSError:  # the dead process had accepted the connection, or its queue has it
        return False


def test_unknown_method_adds_no_series() -> None:
    def connection(method: str) -> SimpleNamespace:
        return SimpleNamespace(request=SimpleNamespace(method=method), stream=None, upgraded=None)

    connections = SimpleNamespace(open=[connection(m) for m in ("GET", "SCAN1", "SCAN2")], refusals={})
    active = next(iter(connection_metrics(cast("Connections", connections))))
    assert [(point.labels, point.value) for point in active.points] == [(["GET"], 1), ([OTHER], 2)]
