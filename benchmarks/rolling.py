"""Rolling restarts: replicas of a service, balancers in front of them, and clients that count failed requests."""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SERVICE = Path(__file__).parent / "peers" / "tinysvc_rollout.py"

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream replicas {{ {servers} keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://replicas; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
"""The usual settings: idle connections are kept, and a POST that was sent is not repeated."""

REQUESTS = (("GET", "/io", b""), ("POST", "/cpu", b"[20000]"), ("GET", "/stream", b""))

CONTENTS = {"/io": b'{"answer":42}', "/cpu": b"199990000", "/stream": b"end\n"}
"""The end of each response."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Replica:
    """One server of the service, on a port of its own."""

    def __init__(self, python: str, drain_delay: float) -> None:
        self.port = free_port()
        options = ["--port", str(self.port), "--cpu-workers", "1", "--drain-delay", str(drain_delay)]
        self._command = [python, "-m", "tinysvc", str(SERVICE), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, limit: float = 60.0) -> None:
        """Start it, and wait until it is ready."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + limit
        while not is_ready(self.port):
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"the replica on port {self.port} is not ready")
            time.sleep(0.05)

    def end(self) -> None:
        """Send SIGTERM, as a deployment does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        assert self._process is not None
        if status := self._process.wait(60):
            raise RuntimeError(f"a replica ended with status {status}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def replicas_of(python: str, count: int, drain_delay: float) -> Iterator[list[Replica]]:
    replicas = [Replica(python, drain_delay) for _ in range(count)]
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.kill()


@contextlib.contextmanager
def nginx(replicas: Sequence[Replica]) -> Iterator[int]:
    """nginx in front of the replicas, with passive checks only; the value is its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        servers = " ".join(f"server 127.0.0.1:{replica.port} max_fails=0;" for replica in replicas)
        (Path(folder) / "nginx.conf").write_text(NGINX.format(folder=folder, servers=servers, port=port))
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        with subprocess.Popen(
            ["nginx", "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL, env={**os.environ, "PATH": path}
        ) as process:
            try:
                end = time.monotonic() + 30
                while not is_ready(port):
                    if time.monotonic() > end:
                        raise RuntimeError("nginx does not serve")
                    time.sleep(0.05)
                yield port
            finally:
                process.kill()


class Clients:
    """Threads that send `rate` requests a second together, on kept connections, while the block runs.

    `target` gives the port for a new connection; a client asks for it again after each 20 requests.
    """

    def __init__(self, target: Callable[[], int], rate: float, threads: int = 20) -> None:
        self.failures: collections.Counter[str] = collections.Counter()
        self.count = 0
        self._target = target
        self._pause = threads / rate
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        due, connection = time.monotonic() + random.random() * self._pause, None
        sent = 0
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            if connection is None or connection.sock is None or sent % 20 == 0:
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", self._target(), timeout=20)
            method, path, body = REQUESTS[(number + sent) % len(REQUESTS)]
            failure = self._failure(connection, method, path, body)
            sent += 1
            with self._lock:
                self.count += 1
                if failure:
                    self.failures[f"{method} {path}: {failure}"] += 1
        if connection is not None:
            connection.close()

    def _failure(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes) -> str:
        try:
            connection.request(method, path, body or None, {"content-type": "application/json"} if body else {})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return type(error).__name__
        if response.status != 200:
            return str(response.status)
        return "" if content.endswith(CONTENTS[path]) else "incomplete"


class Endpoints:
    """The ports to which a balancer sends new connections. It learns `lag` seconds late that a replica ends."""

    def __init__(self, replicas: Sequence[Replica], lag: float) -> None:
        self._lag = lag
        self._ports = [replica.port for replica in replicas]

    def choose(self) -> int:
        return random.choice(self._ports)

    def remove(self, replica: Replica) -> None:
        threading.Timer(self._lag, self._ports.remove, (replica.port,)).start()

    def add(self, replica: Replica) -> None:
        self._ports.append(replica.port)


def restart_each(replicas: Sequence[Replica], endpoints: Endpoints | None = None) -> None:
    """Restart the replicas, one after the other."""
    for replica in replicas:
        replica.end()
        if endpoints is not None:
            endpoints.remove(replica)
        replica.wait()
        replica.start()
        if endpoints is not None:
            endpoints.add(replica)
