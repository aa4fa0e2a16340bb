"""iohandlers.py: io handlers with deadlines, limits and middleware of their own. The rest is test_service.py's."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tinysvc import ConfigurationError, Request, Response, Service, io_route
from tinysvc.messages import Handler
from tinysvc.testing import serving

ended: list[str] = []
come, leave = threading.Semaphore(0), threading.Event()


@io_route("/late", timeout=0.05)
async def late() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("late")


@io_route("/own", timeout=60)
async def own_timeout() -> None:
    raise TimeoutError("of the handler's own")


@io_route("/narrow", limit=2)
def narrow() -> str:
    come.release()
    leave.wait(20)
    return "done"


async def stamped(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.add_header("x-stamped", request.method)
    return response


@io_route("/stamped", middleware=[stamped])
async def with_middleware() -> str:
    return "text"


def test_a_deadline_on_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(late, own_timeout), raise_errors=False) as url:
        answer = httpx.get(f"{url}/late")
        assert (answer.status_code, answer.json()["detail"]) == (504, "The request was not answered within 0.05 s.")
        assert ended == ["late"]
        assert httpx.get(f"{url}/own").status_code == 500
    assert "of the handler's own" in caplog.text


def test_a_limit_of_one_route() -> None:
    with serving(Service(narrow, with_middleware)) as url, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(httpx.get, f"{url}/narrow") for _ in range(2)]
        for _ in asked:
            come.acquire()
        answer = httpx.get(f"{url}/narrow")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["detail"] == "This route is at work on 2 requests, as many as it may."
        assert httpx.get(f"{url}/stamped").status_code == 200
        leave.set()
        assert [each.result().text for each in asked] == ["done", "done"]


def test_middleware_of_one_route() -> None:
    with serving(Service(with_middleware, narrow)) as url:
        assert httpx.get(f"{url}/stamped").headers["x-stamped"] == "GET"
        assert httpx.post(f"{url}/stamped").headers["x-stamped"] == "POST"  # its 405 is the route's too
        assert "x-stamped" not in httpx.get(f"{url}/nothing").headers


def test_a_thread_cannot_be_stopped() -> None:
    with pytest.raises(ConfigurationError, match="only an async def can be stopped on the way"):
        io_route("/", timeout=1)(narrow)
