"""worker_calls.py: cpu handlers call handlers that run in the same process, and in another one."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

import called_app as app
import waiting_app
from system import wait_until
from tinysvc import ConfigurationError, Pool, Service, call
from tinysvc.runtime.worker_calls import _whole
from tinysvc.testing import serving

POOLS = {"callers": Pool(workers=1)}


@pytest.fixture(scope="module", params=["here", "wire", "thread"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "wire":
        with (
            serving(app, raise_errors=False, cpu_workers=1) as other,
            serving(Service(waiting_app, pools=POOLS), raise_errors=False, services=f"called_app={other}") as url,
        ):
            yield url
    else:
        workers = 0 if request.param == "thread" else 1
        service = Service(waiting_app, app, pools=POOLS)
        with serving(service, raise_errors=False, cpu_workers=workers) as url:
            yield url


def get(url: str, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{url}{path}", headers=headers, timeout=30)


def post(url: str, path: str, **options: object) -> httpx.Response:
    return httpx.post(f"{url}{path}", timeout=30, **options)  # type: ignore[arg-type]


def test_result_of_a_call(url: str) -> None:
    assert post(url, "/move", json={"x": 1, "y": 2}).json() == {"x": 3, "y": 6, "tags": ["moved"]}
    assert post(url, "/cpu-move", json={"x": 1, "y": 2}).json() == {"x": 3, "y": 50, "tags": []}


def test_plain_def_io_handler_waits_in_its_thread(url: str) -> None:
    assert post(url, "/in-thread", json={"x": 1, "y": 2}).json() == {"x": 3, "y": 6, "tags": ["moved"]}
    found = get(url, "/seen-in-thread", **{"x-request-id": "r-2", "request-timeout": "9s"}).json()
    assert found["id"] == "r-2"
    assert found["left"] <= 9


def test_bytes_and_files_travel(url: str) -> None:
    assert post(url, "/reverse", content=b"abc").content == b"cba"
    big = os.urandom(3_000_000)
    assert post(url, "/reverse", content=big).content == big[::-1]
    for size in (10, 3_000_000):
        found = post(url, "/forward", files={"photo": ("a.png", b"abcd" + b"x" * size, "image/png")}).json()
        assert found == ["t", "a.png", "image/png", size + 4, 1, "abcd"]


def test_circumstances_of_the_request_travel(url: str) -> None:
    plain, credentials = get(
        url, "/seen", **{"x-request-id": "r-1", "traceparent": "t", "authorization": "Bearer s", "x-call-hops": "3"}
    ).json()
    assert (plain["id"], plain["traceparent"], plain["x-call-hops"]) == ("r-1", "t", "4")
    assert plain["authorization"] is None
    assert credentials["authorization"] == "Bearer s"
    assert 20 < plain["left"] <= 30
    assert get(url, "/seen", **{"request-timeout": "9s"}).json()[0]["left"] <= 9


def test_errors_of_a_call(url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert get(url, "/fails/404").json() == ["CalleeError", 404, "There is no such thing.", 404]
    assert get(url, "/fails/bug").json() == ["CallFailed", 500, "called_app", None]
    assert get(url, "/fails/503").json() == ["CallUnavailable", 503, "called_app", 7]
    response = get(url, "/unhandled", **{"x-request-id": "r-7"})
    assert (response.status_code, response.json()["type"]) == (502, "urn:tinysvc:call-failed")
    assert "secret" not in response.text
    line = "GET /unhandled (request r-7): 502, The callee has answered 500 Internal Server Error. (service called_app"
    assert line in caplog.text
    assert get(url, "/calls-unhandled").json() == 502


def test_call_that_cannot_be_made_is_refused(url: str) -> None:
    streams, plain, raise_one = get(url, "/odd").json()
    assert "streams, and call.wait(...) returns one value" in streams
    assert "has no route" in plain
    assert "has no route" in raise_one


@pytest.mark.parametrize("path", ["/own", "/own-by-another"])
def test_call_that_needs_its_own_pool_is_refused(url: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert get(url, path).status_code in (502, 508)
    text = "harmless needs a worker of the pool 'callers', and another one of its workers waits for it"
    assert text in caplog.text


def test_budget_of_a_block_limits_a_call(url: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert 0.15 < post(url, "/short", params={"path": str(state)}).json() < 10
    wait_until(lambda: state.read_text() == "ended", "the callee is cancelled")


# Ends of the job. A thread cannot be stopped, so these have workers.


@pytest.fixture
def workers(url: str, request: pytest.FixtureRequest) -> str:
    if "thread" in request.node.callspec.id:
        pytest.skip("a thread cannot be stopped")
    return url


def begin(url: str, path: str, state: Path) -> socket.socket:
    sock = socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)
    head = f"POST {path}?path={state} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nrequest-timeout: 20s\r\n\r\n"
    sock.sendall(head.encode())
    wait_until(lambda: state.exists() and state.read_text() == "started", "the callee has started")
    return sock


def test_disconnect_stops_the_job_and_its_call(workers: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    begin(workers, "/long", state).close()
    wait_until(lambda: state.read_text() == "ended", "the callee is cancelled")
    assert get(workers, "/harmless").status_code == 200


def test_deadline_stops_the_job_and_its_call(workers: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    response = post(workers, "/long", params={"path": str(state)}, headers={"request-timeout": "1500ms"})
    assert (response.status_code, response.json()["type"]) == (504, "urn:tinysvc:budget-exhausted")
    wait_until(lambda: state.read_text() == "ended", "the callee is cancelled")


def test_death_of_the_worker_cancels_its_call(workers: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with begin(workers, "/dies", state):
        os.kill(int(state.with_suffix(".pid").read_text()), signal.SIGKILL)
        wait_until(lambda: state.read_text() == "ended", "the callee is cancelled")
    assert get(workers, "/harmless").status_code == 200


@pytest.mark.parametrize("swallowed", [True, False])
def test_interrupted_call_costs_its_job_and_no_later_one(
    workers: str, tmp_path: Path, swallowed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    params = {"path": str(tmp_path / "state"), "swallowed": swallowed}
    response = post(workers, "/interrupted", params=params)
    assert response.status_code == 500
    text = "a call.wait(...) of the job was interrupted, and its answer is lost" if swallowed else "Interrupted"
    assert text in caplog.text
    assert get(workers, "/harmless").status_code == 200
    assert post(workers, "/move", json={"x": 1}).status_code == 200


# Elsewhere


def test_code_that_is_no_cpu_handler_is_told_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"which is for cpu handlers and .* write `await call"):
        call.wait(app.moved, app.Point(1))


def test_body_that_needs_an_event_loop_is_refused() -> None:
    async def waiting() -> object:
        import asyncio

        await asyncio.sleep(0)
        yield b""

    with pytest.raises(TypeError, match="needs an event loop"):
        _whole(waiting)  # type: ignore[arg-type]
