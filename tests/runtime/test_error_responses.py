"""error_responses.py: the response to an error, and its record in the log."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from system import wait_until
from tinysvc import (
    BudgetExhausted,
    CallFailed,
    CallUnavailable,
    HTTPError,
    Request,
    Response,
    Service,
    TinysvcError,
    cpu_route,
    io_route,
)
from tinysvc.core.errors import NoRoute
from tinysvc.runtime.error_responses import error_response, of_longest_prefix
from tinysvc.testing import serving


@io_route("/io/{kind}")
async def io_fails(kind: str) -> Any:
    return failing(kind)


@cpu_route("/cpu/{kind}")
def cpu_fails(kind: str) -> Any:
    return failing(kind)


@cpu_route("/slow", timeout=0.05)
def slow() -> None:
    time.sleep(60)


def failing(kind: str) -> Any:
    if kind == "raised":
        raise HTTPError(503, "later")
    if kind == "returned":
        return Response("later", 503)
    if kind == "encoded":
        return object()
    raise RuntimeError(kind)


PATHS = [f"/{side}/{kind}" for side in ("io", "cpu") for kind in ("raised", "returned", "encoded", "bug")]


def test_every_5xx_has_the_request_id() -> None:
    with serving(Service(io_fails, cpu_fails, slow), cpu_workers=1, raise_errors=False) as url:
        for path in (*PATHS, "/slow"):
            answer = httpx.get(url + path, headers={"x-request-id": "mine"})
            assert answer.status_code >= 500
            assert answer.headers.get_list("x-request-id") == ["mine"]
            assert path.endswith("returned") or orjson.loads(answer.content)["request_id"] == "mine"
            assert httpx.get(url + path).headers["x-request-id"]
        assert "x-request-id" not in httpx.get(f"{url}/nowhere").headers


@cpu_route("/gated")
def gated(file: str) -> None:
    while not os.path.exists(file):
        time.sleep(0.005)


def test_503_of_a_full_queue_has_the_request_id(tmp_path: Path) -> None:
    file = tmp_path / "go"

    def ask(name: str) -> httpx.Response:
        return httpx.get(f"{url}/gated", params={"file": str(file)}, headers={"x-request-id": name}, timeout=20)

    def queued() -> int:
        waiting: int = httpx.get(f"{url}/readyz").json()["pools"]["default"]["queued"]
        return waiting

    with (
        serving(Service(gated), cpu_workers=1, queue_size=1, raise_errors=False) as url,
        ThreadPoolExecutor() as threads,
    ):
        others = [threads.submit(ask, name) for name in ("first", "second")]
        wait_until(lambda: queued() == 1, "one runs and one waits")
        refused = ask("third")
        file.touch()
        assert [each.result().status_code for each in others] == [204, 204]
    assert (refused.status_code, refused.headers["x-request-id"]) == (503, "third")
    assert refused.json()["request_id"] == "third"


@pytest.mark.asyncio
async def test_cancelled_error_of_a_handler_is_500() -> None:
    response = error_response(asyncio.CancelledError(), Request("GET", "/"), {})
    assert response.status == 500


def test_longest_prefix_wins_and_ends_at_a_slash() -> None:
    by_prefix = {"": 0, "/a": 1, "/a/b": 2}
    assert [of_longest_prefix(by_prefix, path) for path in ("/a", "/a/b/c", "/ab", "/")] == [1, 2, 0, 0]
    assert of_longest_prefix({"/a": 1}, "/b") is None


def test_options_of_an_unknown_path_is_404_but_of_the_server_204() -> None:
    responses = [error_response(NoRoute(404), Request("OPTIONS", path), {}) for path in ("*", "/x")]
    assert [response.status for response in responses] == [204, 404]


@pytest.mark.parametrize(
    ("error", "level", "text"),
    [
        (BudgetExhausted("The budget of the request, 1s, was used up."), "INFO", "504, The budget of the request, 1s,"),
        (CallFailed("No answer.", service="shop"), "ERROR", "502, a call failed: No answer. (service shop)"),
        (
            CallUnavailable("All are out.", replica="http://a"),
            "ERROR",
            "503, a call failed: All are out. (replica http",
        ),
    ],
)
def test_failed_call_and_used_up_budget_are_logged(
    error: TinysvcError, level: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response = error_response(error, Request("GET", "/buy", id="r1"), {})
    assert response.status == error.status
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage().startswith(f"GET /buy (request r1): {text}")
