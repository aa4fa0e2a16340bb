"""An author's own metrics in a served service: io and cpu code, a killed worker, several server processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from commands import served, tinysvc
from scrapes import scrape
from system import wait_until

SHOP = """
import os
from collections.abc import Iterator
from prometheus_client import Counter, Gauge, Histogram
from tinysvc import Pool, Service, cpu_route, io_route

SOLD = Counter("sold", "Books sold.", ["how"])
PAGES = Histogram("pages", "Pages.", buckets=[10, 100])
LAST = Gauge("last_sale", "Number of the last sale.", multiprocess_mode="mostrecent")
SOLD.labels("import").inc()

@io_route("/io/{number}")
async def here(number: int) -> int:
    SOLD.labels("io").inc()
    LAST.set(number)
    return os.getpid()

@cpu_route("/cpu/{number}")
def there(number: int) -> int:
    SOLD.labels("cpu").inc()
    PAGES.observe(number)
    LAST.set(number)
    return os.getpid()

@cpu_route("/crash")
def crash() -> None:
    SOLD.labels("cpu").inc()
    os.kill(os.getpid(), 9)
"""

OTHER = """
@cpu_route("/other", pool="other")
def other() -> int:
    SOLD.labels("cpu").inc()
    return os.getpid()

service = Service(here, there, other, crash, pools={"other": Pool(workers=1)})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.mark.usefixtures("nothing_left")
def test_counts_of_io_and_cpu_code_and_of_killed_workers(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP + OTHER)
    with served(*tinysvc("shop.py", "--cpu-workers", "1", "--metrics", "/metrics"), cwd=folder) as server:
        for number in (5, 50, 500):
            server.get(f"/io/{number}")
            server.get(f"/cpu/{number}")
            assert server.get("/crash").status_code == 500
        server.get("/other")
        found = scrape(f"{server.url}/metrics")
        assert {how: found.sum("sold_total", how=how) for how in ("import", "io", "cpu")} == {
            "import": 1,  # each process of the service has imported the module; the import is counted once
            "io": 3,
            "cpu": 7,
        }
        assert [found.sum("pages_bucket", le=bound) for bound in ("10.0", "100.0", "+Inf")] == [1, 2, 3]
        assert (found.sum("pages_count"), found.sum("pages_sum")) == (3, 555)
        assert found.sum("last_sale") == 500
        assert not [name for name, _ in found.samples if name.startswith(("python_", "process_open_fds_"))]


@pytest.mark.usefixtures("nothing_left")
def test_counts_of_three_server_processes_add_up(folder: Path) -> None:
    with served(
        *tinysvc("shop.py", "--workers", "3", "--cpu-workers", "1", "--metrics", "/metrics"), cwd=folder
    ) as server:
        pids = {server.get("/io/1").json() for _ in range(15)}
        for number in range(1, 13):
            server.get(f"/cpu/{number}")
        server.get("/crash")
        server.get("/io/77")
        for _ in range(3):  # each process has the same answer
            found = scrape(f"{server.url}/metrics")
            assert (found.sum("sold_total", how="io"), found.sum("sold_total", how="cpu")) == (16, 13)
            assert found.sum("pages_bucket", le="10.0") == 10
        killed = pids.pop()
        os.kill(killed, signal.SIGKILL)
        # until then its queue may take connections; a zombie may still have other threads
        wait_until(lambda: not Path("/proc", str(killed)).exists(), "it has ended")
        for _ in range(3):
            found = scrape(f"{server.url}/metrics")
            assert (found.sum("sold_total", how="io"), found.sum("sold_total", how="cpu")) == (16, 13)
