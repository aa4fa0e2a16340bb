"""pools.py: pools with their own workers and queues, and their mistakes, refused at start-up."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import service_jobs
from system import descendants, wait_until, workers_below
from tinysvc import (
    ConfigurationError,
    Pool,
    Request,
    Service,
)
from tinysvc.core.errors import WorkerStartError
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work
from tinysvc.testing import serving


def waiting(url: str, path: str, name: str, folder: Path) -> socket.socket:
    """A connection with a request for a job that creates the file `name` and waits for the file "go"."""
    target = f"{path}?started={folder / name}&go={folder / 'go'}"
    connection = socket.create_connection((httpx.URL(url).host, httpx.URL(url).port), timeout=20)
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return connection


def response_on(connection: socket.socket) -> bytes:
    with connection:
        return b"".join(iter(lambda: connection.recv(4096), b""))


def pools_of(url: str) -> Any:
    return httpx.get(f"{url}/readyz", timeout=20).json()["pools"]


@pytest.mark.usefixtures("nothing_left")
def test_full_pool_does_not_slow_other_pools(tmp_path: Path) -> None:
    service = Service(
        service_jobs.train,
        service_jobs.quick,
        service_jobs.io,
        service_jobs.curriculum,
        pools={"training": Pool(workers=1, queue_size=1)},
    )
    with serving(service, cpu_workers=1) as url:
        running = waiting(url, "/train", "a", tmp_path)
        wait_until((tmp_path / "a").exists, "the only worker of the pool is busy")
        queued = waiting(url, "/train", "b", tmp_path)
        wait_until(lambda: pools_of(url)["training"]["queued"] == 1, "its queue is full")
        refused = httpx.get(f"{url}/train?started=x&go=y", timeout=20)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:tinysvc:queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        for _ in range(20):
            assert httpx.get(f"{url}/quick", timeout=20).status_code == 200
            assert httpx.get(f"{url}/io", timeout=20).status_code == 200
        assert not (tmp_path / "b").exists()
        assert pools_of(url)["default"] == {"workers": 1, "ready": 1, "queued": 0}
        (tmp_path / "go").touch()
        assert response_on(running).startswith(b"HTTP/1.1 200 ")
        assert response_on(queued).startswith(b"HTTP/1.1 200 ")


def test_workers_open_only_resources_of_their_pools_routes() -> None:
    service = Service(service_jobs.trained, service_jobs.quick, service_jobs.curriculum, pools={"training": Pool()})
    with serving(service, cpu_workers=1) as url:
        quick, trained = (httpx.get(url + path, timeout=20).json() for path in ("/quick", "/trained"))
        assert quick["pid"] != trained["pid"]
        assert (quick["opened"], trained["opened"]) == ([], ["curriculum"])


@pytest.mark.usefixtures("nothing_left")
def test_limit_of_a_route_limits_its_workers(tmp_path: Path) -> None:
    with serving(Service(service_jobs.narrow, service_jobs.quick, service_jobs.wide), cpu_workers=2) as url:
        first = waiting(url, "/narrow", "a", tmp_path)
        wait_until((tmp_path / "a").exists, "the route uses the one worker of its limit")
        second = waiting(url, "/narrow", "b", tmp_path)
        wait_until(lambda: pools_of(url)["default"]["queued"] == 1, "the second job waits, although a worker is idle")
        for path in ("/quick", "/wide") * 10:
            assert httpx.get(url + path, timeout=20).status_code == 200  # a later job does not wait behind it
        assert not (tmp_path / "b").exists()
        (tmp_path / "go").touch()
        assert response_on(first).startswith(b"HTTP/1.1 200 ")
        assert response_on(second).startswith(b"HTTP/1.1 200 ")
        assert (tmp_path / "b").exists()


@pytest.mark.asyncio
@pytest.mark.usefixtures("nothing_left")
async def test_drain_finishes_the_jobs_of_all_pools(tmp_path: Path) -> None:
    service = Service(service_jobs.train, service_jobs.narrow, service_jobs.curriculum, pools={"training": Pool()})
    go = tmp_path / "go"
    async with at_work(service, Settings(cpu_workers=1, pools=service.pools)) as running:
        assert running.is_ready()
        asked = [
            asyncio.create_task(running(Request("GET", path, f"started={tmp_path / path[1:]}&go={go}")))
            for path in ("/train", "/narrow")
        ]
        while not all((tmp_path / name).exists() for name in ("train", "narrow")):
            await asyncio.sleep(0.005)
        drained = asyncio.create_task(running.drain(20))
        await asyncio.sleep(0)  # let it begin
        go.touch()
        assert [response.status for response in await asyncio.gather(*asked)] == [200, 200]
        await drained
        assert (await running(Request("GET", "/train", "started=x&go=y"))).status == 503


def test_shared_resource_is_opened_before_the_fork() -> None:
    with serving(Service(service_jobs.shared, service_jobs.forkserver), cpu_workers=2) as url:
        answer = httpx.get(f"{url}/shared", timeout=20).json()
        assert answer["opened_in"] != answer["pid"]
        assert answer["pid"] in descendants(answer["opened_in"])


@pytest.mark.usefixtures("nothing_left")
def test_executor_takes_the_place_of_a_pool(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1) as executor:
        with serving(Service(service_jobs.quick, pools={"default": executor})) as url:
            assert httpx.get(f"{url}/quick", timeout=20).json()["pid"] == os.getpid()
        assert [record.levelname for record in caplog.records if "ThreadPoolExecutor" in record.message] == ["WARNING"]


# Mistakes found at start-up


def test_unknown_pool_is_an_error_that_names_the_known_ones() -> None:
    service = Service(service_jobs.train, service_jobs.curriculum, pools={"trainig": Pool(), "gpu": Pool()})
    with pytest.raises(ConfigurationError) as raised, serving(service):
        pass
    assert str(raised.value).startswith("train (")
    assert "there is no pool 'training'; there is: default, trainig, gpu; name one of these, or add " in str(
        raised.value
    )


@pytest.mark.usefixtures("nothing_left")
def test_pool_without_a_route_is_not_started(caplog: pytest.LogCaptureFixture) -> None:
    before = len(workers_below(os.getpid()))
    with serving(Service(service_jobs.quick, pools={"gpu": Pool(), "more": Pool()}), cpu_workers=1) as url:
        assert list(pools_of(url)) == ["default"]
        assert len(workers_below(os.getpid())) == before + 1
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == "no cpu route uses these pools, so they are not started: gpu, more"


@pytest.mark.usefixtures("nothing_left")
def test_pool_that_cannot_start_closes_the_others() -> None:
    service = Service(service_jobs.quick, service_jobs.never, service_jobs.broken, pools={"training": Pool()})
    with pytest.raises(WorkerStartError, match="OSError: no model"), serving(service):
        pass
