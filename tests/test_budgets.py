"""Budgets of requests: the smaller of `Request-Timeout` and the route's timeout stops a handler, in each place."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import budgets_app
from system import wait_until
from tinysvc.testing import serving

KINDS = ["/io", "/io-body", "/io-resource", "/io-long-timeout", "/io-stream"]
CPU_KINDS = ["/cpu", "/cpu-resource", "/cpu-batch", "/cpu-cache"]
BUDGET = {"request-timeout": "100ms"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(budgets_app, raise_errors=False, cpu_workers=1, pools="default:workers=1") as url:
        yield url


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def methods_of(route: str) -> list[str]:
    return ["POST"] if route == "/io-body" else ["GET"]


@pytest.mark.parametrize("route", [*KINDS, *CPU_KINDS])
@pytest.mark.parametrize("header", [BUDGET, {"connect-timeout-ms": "100"}], ids=["request-timeout", "connect"])
def test_handler_is_stopped_when_the_budget_ends(url: str, path: Path, route: str, header: dict[str, str]) -> None:
    start = time.monotonic()
    (method,) = methods_of(route)
    response = httpx.request(method, f"{url}{route}", params={"path": str(path)}, headers=header, timeout=20)
    assert 0.09 < time.monotonic() - start < 20
    assert response.status_code == 504
    problem = response.json()
    assert problem["type"] == "urn:tinysvc:budget-exhausted"
    given = next(iter(header.values()))
    assert f"The budget of the request, {given}, was used up while the" in problem["detail"]
    assert f'budget;desc="{given}"' in response.headers["server-timing"]
    assert "retry-after" not in response.headers


def test_running_job_is_killed_and_does_not_end_later(url: str, path: Path) -> None:
    response = httpx.get(f"{url}/cpu", params={"path": str(path)}, headers={"request-timeout": "800ms"}, timeout=20)
    assert response.json()["detail"].endswith("was used up while the job ran.")
    assert "queue;dur=" in response.headers["server-timing"]
    assert text_of(path) == "started"


def test_job_that_waits_is_never_started(url: str, path: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            httpx.get, f"{url}/cpu", params={"path": str(first)}, headers={"request-timeout": "1s"}, timeout=20
        )
        wait_until(lambda: text_of(first) == "started", "the handler has started")
        response = httpx.get(f"{url}/cpu", params={"path": str(path)}, headers=BUDGET, timeout=20)
        assert response.status_code == 504
        assert response.json()["detail"] == "The budget of the request, 100ms, was used up while the job waited."
        assert "retry-after" not in response.headers
        assert running.result().status_code == 504
    assert not path.exists()


@pytest.mark.parametrize(
    "route", ["/io", "/io-thread", "/io-resource", "/cpu", "/cpu-resource", "/cpu-cache", "/cpu-batch"]
)
def test_nothing_starts_without_any_time(url: str, path: Path, route: str) -> None:
    response = httpx.get(f"{url}{route}", params={"path": str(path)}, headers={"request-timeout": "0ms"})
    assert (response.status_code, response.json()["type"]) == (504, "urn:tinysvc:budget-exhausted")
    assert not path.exists()


@pytest.mark.parametrize("header", [{}, {"request-timeout": "8760h"}, {"request-timeout": "31536000s"}], ids=str)
def test_route_timeout_that_is_shorter_wins(url: str, header: dict[str, str]) -> None:
    response = httpx.get(f"{url}/io-timeout", headers=header)
    assert (response.status_code, response.json()["type"]) == (504, "about:blank")
    assert "within 0.05 s" in response.json()["detail"]
    response = httpx.get(f"{url}/cpu-timeout", headers=header)
    assert response.status_code in (503, 504)
    assert response.json()["type"] in ("urn:tinysvc:deadline-exceeded", "urn:tinysvc:deadline-in-queue")


@pytest.mark.parametrize("value", ["5", "", "soon", "-1s", "1s, 2s"])
def test_malformed_budget_is_refused(url: str, value: str) -> None:
    response = httpx.get(f"{url}/io-left", headers={"request-timeout": value})
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert "Request-Timeout takes" in detail
    assert repr(value) in detail


def test_header_that_stands_twice_is_refused(url: str) -> None:
    response = httpx.get(f"{url}/io-left", headers=[("request-timeout", "1s"), ("request-timeout", "2s")])
    assert response.status_code == 400


def left(url: str, route: str, header: dict[str, str]) -> list[float | None]:
    response = httpx.get(f"{url}{route}", headers=header)
    assert response.status_code == 200
    return response.json()  # type: ignore[no-any-return]


def test_author_sees_the_smaller_one(url: str) -> None:
    budget = {"request-timeout": "10s"}
    for route in ("/io-left", "/io-left-timeout", "/cpu-left", "/cpu-left-endless"):
        assert all(each is not None and 0 < each <= 10 for each in left(url, route, budget)), route
    for route in ("/io-left", "/cpu-left-endless"):
        assert left(url, route, {}) == [None, None]
    for header in ({}, {"request-timeout": "1h"}):
        assert all(each is not None and 10 < each <= 20 for each in left(url, "/io-left-timeout", header))
        assert all(each is not None and 20 < each <= 30 for each in left(url, "/cpu-left", header))


def test_budget_of_one_request_is_not_that_of_the_next(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for header in ({"request-timeout": "10s"}, {}, {"request-timeout": "10s"}, {}):
            found = client.get("/io-left", headers=header).json()
            assert found == [None, None] if not header else found[0] <= 10


def test_stream_is_limited_by_the_client_and_not_by_its_route(url: str) -> None:
    lines = httpx.get(f"{url}/io-left-stream").text.split()
    assert lines[1] == "[null]"
    lines = httpx.get(f"{url}/io-left-stream", headers={"request-timeout": "10s"}).text.split()
    assert 0 < float(lines[1].strip("[]")) <= 10


def test_background_tasks_have_no_deadline(url: str, path: Path) -> None:
    params = {"path": str(path)}
    assert httpx.get(f"{url}/background", params=params, headers={"request-timeout": "10s"}).status_code == 204
    wait_until(lambda: text_of(path) == "None", "the task has run")


def test_middleware_knows_the_budget(url: str) -> None:
    response = httpx.get(f"{url}/in-middleware", headers={"request-timeout": "10s"})
    assert 0 < response.json() <= float(response.headers["x-left"]) <= 10
    response = httpx.get(f"{url}/in-middleware")
    assert (response.text, response.status_code, response.headers["x-left"]) == ("", 204, "None")


# Disconnects


def begin(url: str, method: str, route: str, path: Path, header: str) -> socket.socket:
    sock = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)
    sock.sendall(f"{method} {route}?path={path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n{header}\r\n".encode())
    wait_until(lambda: text_of(path) == "started", "the handler has started")
    return sock


@pytest.mark.parametrize("route", ["/io", "/io-resource"])
def test_disconnect_cancels_a_handler_with_a_budget_whatever_its_method(url: str, path: Path, route: str) -> None:
    begin(url, "POST", route, path, "request-timeout: 20s\r\n").close()
    wait_until(lambda: text_of(path) == "ended", "the handler has ended")


def test_disconnect_kills_a_job_with_a_budget_whatever_its_method(url: str, path: Path) -> None:
    begin(url, "POST", "/cpu", path, "request-timeout: 20s\r\n").close()
    response = httpx.get(f"{url}/cpu-left", timeout=10)  # the only worker is free again
    assert response.status_code == 200
    assert text_of(path) == "started"


@pytest.mark.parametrize("route", ["/io-finish", "/cpu-finish"])
def test_route_that_finishes_finishes_with_a_budget_too(url: str, path: Path, route: str) -> None:
    begin(url, "POST", route, path, "request-timeout: 20s\r\n").close()
    wait_until(lambda: text_of(path) == "finished", "the handler has finished")


def test_log_names_the_budget(url: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tinysvc")
    httpx.get(f"{url}/io", params={"path": str(path)}, headers={**BUDGET, "x-request-id": "abc"})
    text = "GET /io (request abc): 504, The budget of the request, 100ms, was used up while the handler ran."
    assert text in [record.getMessage() for record in caplog.records]
