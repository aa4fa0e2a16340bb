"""service_metrics.py: the registry of a service; traces of requests; nothing of it without the option."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

from scrapes import scrape
from tinysvc import Request, Service, cpu_route, io_route
from tinysvc.core.headers import Headers
from tinysvc.runtime.service_metrics import sampled_trace
from tinysvc.testing import serving

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (f"00-{TRACE_ID}-b7ad6b7169203331-01", TRACE_ID),
        (f"00-{TRACE_ID}-b7ad6b7169203331-00", ""),
        ("nonsense", ""),
        (f"00-{TRACE_ID}-b7ad6b7169203331-zz", ""),
        ("", ""),
    ],
)
def test_only_a_sampled_trace_has_an_id(header: str, trace_id: str) -> None:
    headers = Headers([(b"traceparent", header.encode())] if header else [])
    assert sampled_trace(Request("GET", "/", headers=headers)) == trace_id


@io_route("/")
async def root() -> str:
    return "root"


def test_exemplar_names_the_trace_of_a_request() -> None:
    with serving(Service(root), metrics="/metrics") as url:
        httpx.get(url, headers={"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"})
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        assert f'# {{trace_id="{TRACE_ID}"}}' in httpx.get(f"{url}/metrics", headers=accept).text
        assert TRACE_ID not in scrape(f"{url}/metrics").text  # the older format has no exemplars


@cpu_route("/cached/{number}", cache=60)
def cached(number: int) -> int:
    return number


def test_use_of_the_cache_is_counted() -> None:
    with serving(Service(root, cached), cpu_workers=1, metrics="/metrics") as url:
        for number in (1, 2, 1, 1):
            httpx.get(f"{url}/cached/{number}")
        found = scrape(f"{url}/metrics")
    assert found.sum("tinysvc_cache_requests_total", result="hit") == 2
    assert found.sum("tinysvc_cache_requests_total", result="miss") == 2
    assert found.sum("tinysvc_cache_size_bytes") > 0
    assert found.sum("tinysvc_pool_jobs_total", outcome="ok") == 2


def test_service_without_the_option_loads_nothing_of_it() -> None:
    code = (
        "import sys, urllib.request; from tinysvc import Service, io_route\n"
        "from tinysvc.testing import serving\n"
        "async def root() -> None: ...\n"
        "with serving(Service(io_route('/')(root))) as url: urllib.request.urlopen(url).read()\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "tinysvc.server.server" in loaded
    assert not [name for name in loaded if name.startswith(("prometheus_client", "tinysvc.telemetry"))]
