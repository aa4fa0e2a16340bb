"""A real Prometheus (Debian's package) scrapes a real service with several processes, and answers queries."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from commands import served, tinysvc
from scrapes import fetch
from system import wait_until

pytestmark = [
    pytest.mark.usefixtures("nothing_left"),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's package prometheus is not installed"),
]

SERVICE = """
from tinysvc import cpu_route, io_route

@io_route("/items/{name}")
async def item(name: str) -> str:
    return name

@cpu_route("/double/{number}")
def double(number: int) -> int:
    return 2 * number
"""

CONFIGURATION = """
global:
  scrape_interval: 200ms
scrape_configs:
  - job_name: tinysvc
    static_configs:
      - targets: ["{target}"]
"""


def free_port() -> int:
    """A port that was free a moment ago: Prometheus does not say which one it gets for 0."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def value(self, query: str) -> float:
        """The value of a query with one result; -1 if there is none yet."""
        try:
            response = httpx.get(f"{self.url}/api/v1/query", params={"query": query})
        except httpx.TransportError:
            return -1
        if response.status_code == 503:  # it listens before its storage is open
            return -1
        found = response.json()["data"]["result"]
        return float(found[0]["value"][1]) if found else -1

    def target(self) -> dict[str, str]:
        (found,) = httpx.get(f"{self.url}/api/v1/targets").json()["data"]["activeTargets"]
        return dict(found)


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[Prometheus]:
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(target=target))
    subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=folder, check=True, capture_output=True)
    address = f"127.0.0.1:{free_port()}"
    options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}")
    exemplars = "--enable-feature=exemplar-storage"
    with subprocess.Popen(["prometheus", *options, exemplars], cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_prometheus_scrapes_the_sums_of_all_processes(tmp_path: Path) -> None:
    (tmp_path / "scraped.py").write_text(SERVICE)
    arguments = tinysvc("scraped.py", "--workers", "2", "--metrics", "127.0.0.1:0")
    with served(*arguments, cwd=tmp_path) as server:
        (line,) = [line for line in server.lines if line.startswith("metrics at ")]
        target = line.removeprefix("metrics at http://").removesuffix("/metrics")
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        traced = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        for number in range(10):
            httpx.get(f"{server.url}/items/{number}", headers=traced)
            fetch(f"{server.url}/items/{number}")
        for number in range(5):
            fetch(f"{server.url}/double/{number}")
        with prometheus(target, tmp_path) as found:
            items = 'sum(http_server_request_duration_seconds_count{http_route="/items/{name}"})'
            wait_until(lambda: found.value(items) == 20, "20 requests are known")
            assert found.value('tinysvc_pool_jobs_total{outcome="ok"}') == 5
            assert found.value("up") == 1
            assert found.target()["lastError"] == ""
            buckets = 'http_server_request_duration_seconds_bucket{http_route="/items/{name}"}'
            assert 0 < found.value(f"histogram_quantile(0.99, sum by (le) ({buckets}))") < 10
            response = httpx.get(
                f"{found.url}/api/v1/query_exemplars", params={"query": buckets, "start": 0, "end": "9999999999"}
            )
            assert trace_id in response.text
            fetch(f"{server.url}/items/more")
            wait_until(lambda: found.value(items) == 21, "one more is known")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
