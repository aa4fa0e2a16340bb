"""server.py in this process: readiness, drain, addresses, certificates."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import faulty
from system import wait_until, workers_below
from tinysvc import ConfigurationError, Request, Service, io_route
from tinysvc.core.settings import Settings
from tinysvc.server.server import Server

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("nothing_left")]


async def test_readiness_follows_the_workers(tmp_path: Path) -> None:
    server = Server(Service(faulty.cpu), Settings(port=0, cpu_workers=2))
    async with server.listening() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        assert (await client.get("/readyz")).status_code == 200
        stopped = workers_below(os.getpid())
        forkserver = os.getpgid(int(Path(f"/proc/{stopped[0]}/stat").read_text().split()[3]))
        os.kill(forkserver, signal.SIGSTOP)  # no worker can be replaced now
        try:
            os.kill(stopped[0], signal.SIGKILL)
            async with asyncio.timeout(20):
                while (answer := await client.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.001)
        finally:
            os.kill(forkserver, signal.SIGCONT)
        assert answer.status_code == 503
        assert answer.json()["pools"]["default"]["ready"] == 1
        async with asyncio.timeout(20):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.001)


@io_route("/livez")
async def own_livez() -> str:
    return "mine"


async def test_livez_of_the_service_takes_precedence() -> None:
    async with Server(Service(own_livez), Settings(port=0)).listening() as url, httpx.AsyncClient() as client:
        assert (await client.get(url + "/livez")).text == "mine"


async def test_ipv6_address_is_served() -> None:
    try:
        async with Server(Service(own_livez), Settings(host="::1", port=0)).listening() as url:
            assert url.startswith("http://[::1]:")
            async with httpx.AsyncClient() as client:
                assert (await client.get(url + "/livez")).text == "mine"
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")


async def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no address of this machine|cannot listen on"):
        async with Server(Service(own_livez), Settings(host="203.0.113.1", port=0)).listening():
            pass


async def test_unix_path_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match=f"cannot listen on the Unix socket {path}"):
        async with Server(Service(own_livez), Settings(unix=str(path))).listening():
            pass
    assert path.read_text() == "precious"


async def test_drain_lets_requests_finish(tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    server = Server(Service(faulty.io_wait), Settings(port=0))
    async with httpx.AsyncClient(timeout=20) as client:
        async with server.listening() as url:
            request = asyncio.create_task(client.get(f"{url}/io-wait", params={"started": str(started), "go": str(go)}))
            while not started.exists():
                await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0.05, go.touch)
        answer = await request
    assert (answer.text, answer.headers["connection"]) == ("done", "close")


async def test_late_requests_are_aborted_at_the_end_of_a_drain(tmp_path: Path) -> None:
    started = tmp_path / "started"
    server = Server(Service(faulty.io_wait), Settings(port=0, shutdown_timeout=0.05))
    async with httpx.AsyncClient(timeout=20) as client:
        async with server.listening() as url:
            request = asyncio.create_task(
                client.get(f"{url}/io-wait", params={"started": str(started), "go": "/nowhere"})
            )
            while not started.exists():
                await asyncio.sleep(0.001)
        with pytest.raises(httpx.HTTPError):
            await request


async def test_connection_in_the_queue_is_served_when_a_drain_begins(tmp_path: Path) -> None:
    """Its client may have sent its request. It closes then, although another request still runs."""
    started, go = tmp_path / "started", tmp_path / "go"
    server = Server(Service(faulty.io_wait), Settings(port=0))
    async with httpx.AsyncClient(timeout=20) as client:
        async with server.listening() as url:
            request = asyncio.create_task(client.get(f"{url}/io-wait", params={"started": str(started), "go": str(go)}))
            while not started.exists():
                await asyncio.sleep(0.001)
            port = int(url.rpartition(":")[2])
            late = _connect(port)
            late.sendall(ASK)
            reading = asyncio.get_running_loop().run_in_executor(None, _touch_at_the_end_of, late, go)
        assert (await request).text == "done"
        response = await reading
        assert response.startswith(b"HTTP/1.1 404 ")
        assert b"connection: close\r\n" in response
        with pytest.raises(ConnectionRefusedError):
            _connect(port)


def _touch_at_the_end_of(connection: socket.socket, go: Path) -> bytes:
    """All that the server sends."""
    received = b""
    with connection:
        while data := connection.recv(4096):
            received += data
        go.touch()
    return received


async def test_server_uses_several_listeners(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
        server = Server(Service(own_livez), Settings(), [tcp, unix])
        async with server.listening() as url:
            assert server.urls == [url, f"unix:{tmp_path / 'socket'}"]
            async with httpx.AsyncClient() as client:
                assert (await client.get(url + "/livez")).text == "mine"
            transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "socket"))
            async with httpx.AsyncClient(transport=transport) as client:
                assert (await client.get("http://x/livez")).text == "mine"
    assert (tmp_path / "socket").exists()  # the caller has created it and removes it


async def test_address_on_which_another_socket_listens_is_refused() -> None:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        first.listen()
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127.0.0.1:{first.getsockname()[1]}: "):
            async with Server(Service(own_livez), Settings(), [second]).listening():
                pass


def _certify(path: Path) -> Path:
    """A new certificate and its key, in one file."""
    make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 2 -subj /CN=localhost"
    key = path.with_suffix(".key")
    made = subprocess.run([*make.split(), "-keyout", key], check=True, capture_output=True, text=True)
    path.write_text(key.read_text() + made.stdout)
    return path


@io_route("/scheme")
async def scheme(request: Request) -> str:
    return request.scheme


async def test_certificates_are_reloaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def seen() -> str:
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=20)

    caplog.set_level("INFO", "tinysvc")
    certificate = _certify(tmp_path / "certificate.pem")
    server = Server(Service(scheme), Settings(port=0, ssl_cert=str(certificate)))
    async with server.listening() as url, httpx.AsyncClient(verify=False, timeout=20) as client:
        assert url.startswith("https://127.0.0.1:")
        port = int(url.rpartition(":")[2])
        assert (await client.get(f"{url}/scheme")).text == "https"
        first = await seen()
        certificate.write_text("nonsense")
        server.reload_certificates()
        assert await seen() == first
        _certify(certificate)
        server.reload_certificates()
        assert await seen() != first
        assert (await client.get(f"{url}/scheme")).text == "https"  # on the old connection
    failure, success = (record for record in caplog.records if record.name == "tinysvc")
    assert re.match(
        f"the new certificates are not valid, the old ones stay in use: .*{certificate}", failure.getMessage()
    )
    assert (failure.levelname, success.getMessage()) == ("ERROR", "the certificates were reloaded")


async def test_server_in_a_program_is_one_process() -> None:
    with pytest.raises(ConfigurationError, match=r"workers is 2, but .*: use workers=1 here"):
        Server(Service(own_livez), Settings(workers=2))


FEW = 64
"""Limit of descriptors of the server."""

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SERVICE = """
import tinysvc

@tinysvc.io_route("/")
async def root() -> str:
    return "still here"

if __name__ == "__main__":
    tinysvc.run(__name__, port=0, max_connections=10_000)
"""


def response_on(connection: socket.socket) -> bytes:
    """The response to a request; empty if the connection was closed at once."""
    try:
        connection.sendall(ASK)
        return connection.recv(65536)
    except ConnectionError:
        return b""


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


async def test_connection_beyond_the_descriptor_limit_is_closed(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    limited = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, {FEW}))"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{limited}; runpy.run_path('service.py', run_name='__main__')"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        port = int(next(line for line in process.stdout if "listening" in line).rpartition(":")[2])
        served = []
        while response_on(further := _connect(port)):
            served.append(further)
            assert len(served) < FEW
        further.close()
        for _ in range(FEW):
            with _connect(port) as refused:
                assert not response_on(refused)
        for connection in served:
            assert response_on(connection).endswith(b"still here")
            connection.close()

        def is_back() -> bool:
            with _connect(port) as connection:
                return bool(response_on(connection))

        wait_until(is_back, "further connections are served again")
        process.terminate()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, errors) == (0, "")
