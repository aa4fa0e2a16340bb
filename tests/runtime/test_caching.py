"""caching.py: keys of requests, the lifetime of responses, and requests that wait for one computation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import caching_jobs
from http_ends import on_loop
from system import wait_until
from tinysvc import (
    Cache,
    ConfigurationError,
    Request,
    Response,
    Service,
    cpu_route,
)
from tinysvc.core.headers import Headers
from tinysvc.core.settings import Settings
from tinysvc.pool.arena import BIG
from tinysvc.runtime.caching import OVERHEAD, CachedRoute, ResponseCache, StoredResponse
from tinysvc.runtime.running_service import at_work
from tinysvc.service.routes import recorded
from tinysvc.testing import serving


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("CACHING_JOBS_FOLDER", str(tmp_path))
    with (
        serving(caching_jobs, cpu_workers=2, max_cache_size=1_000_000, raise_errors=False) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def test_equal_requests_are_computed_once(client: httpx.Client) -> None:
    first = client.get("/number/a")
    again = client.get("/number/a")
    assert first.text == again.text == "1"
    assert "age" not in first.headers
    assert again.headers["age"] == "0"
    assert first.headers["cache-control"] == again.headers["cache-control"] == "max-age=60"
    assert first.headers["content-type"] == again.headers["content-type"]
    assert "server-timing" in first.headers
    assert "server-timing" not in again.headers
    different = [
        client.get("/number/b"),
        client.get("/number/a?q=1"),
        client.post("/number/a"),
        client.post("/number/a", content=b"x"),
        client.post("/number/a", content=b"x" * 100),
        client.post("/number/a", content=b"x" * 99 + b"y"),
    ]
    assert [answer.text for answer in different] == ["2", "3", "4", "5", "6", "7"]
    assert client.post("/number/a", content=b"x" * 100).text == "6"
    assert client.get("/number/a", headers={"x-whatever": "1"}).text == "1"


def test_headers_that_matter(client: httpx.Client) -> None:
    by_header = [({}, "1"), ({"accept-language": "de"}, "2"), ({"x-tenant": "t"}, "3"), ({"x-other": "o"}, "1")]
    for headers, expected in by_header:
        answer = client.get("/by-header", headers=headers)
        assert answer.text == expected
        assert answer.headers["vary"] == "accept-language, x-tenant"
    assert [client.get("/by-cookie", headers={"cookie": f"user={name}"}).text for name in "aba"] == ["4", "5", "4"]


@pytest.mark.parametrize(
    ("path", "headers", "vary", "control"),
    [
        ("/by-user", {"cookie": "session=a"}, "cookie", "max-age=60"),
        ("/by-partner", {"x-api-key": "a"}, "x-api-key", "max-age=60"),
        ("/by-token", {"authorization": "Bearer a"}, "authorization", "private, max-age=60"),
        ("/by-visitor", {}, "", "private, max-age=60"),
        ("/number/token", {"authorization": "Bearer a"}, "", "private, max-age=60"),
        ("/public-by-token", {"authorization": "Bearer a"}, "authorization", "private, max-age=5"),
    ],
)
def test_vary_names_the_headers_of_a_response(
    client: httpx.Client, path: str, headers: dict[str, str], vary: str, control: str
) -> None:
    for _ in range(2):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200
        assert answer.headers.get("vary", "") == vary
        assert answer.headers["cache-control"] == control


def test_response_with_a_cookie_is_never_public(client: httpx.Client) -> None:
    answer = client.get("/answers/public-cookie")
    assert answer.headers["cache-control"] == "private, max-age=5"


def test_result_is_kept_for_the_seconds_of_its_option(client: httpx.Client) -> None:
    wait_until(lambda: client.get("/brief").text == "3", "it was computed three times")


@pytest.mark.parametrize("kind", ["error", "cookie", "private", "no-store", "stream", "raises", "fails"])
def test_errors_and_private_responses_are_not_kept(
    client: httpx.Client, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [client.get(f"/answers/{kind}") for _ in range(2)]
    assert len({answer.status_code for answer in answers}) == 1
    if kind != "fails":
        assert "1" in answers[0].text
        assert "2" in answers[1].text
    assert all("age" not in answer.headers for answer in answers)


def test_cache_control_of_the_handler_stays(client: httpx.Client) -> None:
    for _ in range(2):
        answer = client.get("/answers/own")
        assert (answer.text, answer.status_code, answer.headers["x-a"]) == ("1", 201, "b")
        assert answer.headers["cache-control"] == "public, max-age=5"
    assert [client.get("/answers/none").status_code for _ in range(2)] == [204, 204]


def test_big_response_is_not_kept(client: httpx.Client) -> None:
    assert [client.get("/answers/big").text.partition(" ")[0] for _ in range(2)] == ["1", "2"]


def test_route_with_batches_has_a_cache(client: httpx.Client) -> None:
    assert [client.get("/batched?n=7").text for _ in range(3)] == ["7"] * 3
    assert client.get("/number/x").text == "2"


def test_equal_requests_wait_for_one_computation(client: httpx.Client, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(client.get, "/gated/gate") for _ in range(8)]
        wait_until(lambda: list(tmp_path.iterdir()), "it runs")
        assert client.get("/number/beside").text == "2"
        (tmp_path / "gate").touch()
        assert {answer.result().text for answer in answers} == {"1"}
    assert client.get("/gated/gate").text == "1"


# With a handler of the test's


class Slow:
    """A handler that waits for the test."""

    def __init__(self, answer: Any = "x") -> None:
        self.answer = answer
        self.calls = self.cancelled = 0
        self.goes_on = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        self.calls += 1
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return Response(str(self.calls).encode(), headers=self.answer if isinstance(self.answer, dict) else {})


def cached(handler: Any, **options: Any) -> CachedRoute:
    @cpu_route("/x", cache=60, **options)
    def function() -> None: ...

    return CachedRoute(handler, recorded(function)[0], ResponseCache(1_000_000), ["accept"], False)  # type: ignore[arg-type]


async def begun(slow: Slow, *awaitables: Any) -> list[asyncio.Future[Response]]:
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    while not slow.calls:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


@on_loop
async def test_disconnect_does_not_affect_other_waiting_requests() -> None:
    slow = Slow()
    route = cached(slow)
    first, second = await begun(slow, route(Request("GET", "/x")), route(Request("GET", "/x")))
    first.cancel()
    await asyncio.sleep(0)
    slow.goes_on.set()
    assert (await second).content == b"1"
    assert (slow.calls, slow.cancelled) == (1, 0)


@on_loop
async def test_computation_ends_with_its_last_request() -> None:
    slow = Slow()
    route = cached(slow)
    requests = [Request("GET", "/x") for _ in range(3)]
    tasks = await begun(slow, *map(route, requests))
    for request in requests:
        assert request.on_disconnect is not None
        request.on_disconnect()
    late = asyncio.ensure_future(route(Request("GET", "/x")))
    await asyncio.wait(tasks)
    while slow.calls < 2:
        await asyncio.sleep(0)
    assert slow.cancelled == 1
    slow.goes_on.set()
    assert (await late).content == b"2"


@on_loop
async def test_post_continues_after_a_disconnect() -> None:
    slow = Slow()
    for options, is_told in (({}, False), ({"on_disconnect": "cancel"}, True)):
        request = Request("POST", "/x")
        slow.calls = 0
        (task,) = await begun(slow, cached(slow, **options)(request))
        assert (request.on_disconnect is not None) == is_told
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("answer", [RuntimeError("x"), {"set-cookie": "a=b"}])
@on_loop
async def test_errors_are_shared_and_private_responses_are_not(answer: Any) -> None:
    slow = Slow(answer)
    route = cached(slow)
    tasks = await begun(slow, *(route(Request("GET", "/x")) for _ in range(3)))
    slow.goes_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(answer, Exception):
        assert results == [answer] * 3
        assert slow.calls == 1
    else:
        assert sorted(result.content for result in results) == [b"1", b"2", b"3"]  # type: ignore[union-attr]


@pytest.mark.parametrize(("length", "answers"), [(None, [b"1", b"2"]), (BIG, [b"1", b"2"]), (1, [b"1", b"1"])])
@on_loop
async def test_big_body_is_not_read_for_its_key(length: int | None, answers: list[bytes]) -> None:
    async def pieces() -> Any:
        yield b"x"

    slow = Slow()
    slow.goes_on.set()
    route = cached(slow)
    headers = Headers([(b"content-length", str(length).encode())] if length else [])
    requests = [Request("POST", "/x", headers=headers, body=pieces()) for _ in answers]
    assert [(await route(each)).content for each in requests] == answers


@on_loop
async def test_repeated_header_differs_from_one_with_a_comma() -> None:
    slow = Slow()
    slow.goes_on.set()
    route = cached(slow)
    blocks = [(b"accept", b"a"), (b"accept", b"b")], [(b"accept", b"a, b")]
    assert [(await route(Request("GET", "/x", headers=Headers(raw)))).content for raw in blocks] == [b"1", b"2"]


def stored(size: int, until: float = 100.0) -> StoredResponse:
    return StoredResponse(200, [], None, bytes(size), 0.0, until)


def test_size_of_the_cache_is_limited() -> None:
    results = ResponseCache(8 * (OVERHEAD + 1000))
    for number in range(20):
        results.put(number, stored(1000))
        results.get(0, 1.0)
        assert results.size <= results.max_size
    assert len(results) == 8
    assert results.get(0, 1.0)  # it was used all the time
    assert not results.get(1, 1.0)
    results.put("big", stored(2000))
    assert not results.get("big", 1.0)
    results.put(0, stored(10))
    assert len(results) == 8
    assert not results.get(0, 100.0)
    assert len(results) == 7
    assert results.size == 7 * (OVERHEAD + 1000)


def test_stored_response_has_its_age() -> None:
    assert stored(1).response(12.9).headers == [("age", "12")]


# Mistakes


@pytest.mark.parametrize("cache", [0, -1, "60", True, Cache(0), Cache(1, headers="accept"), Cache(1, headers=[1])])  # type: ignore[list-item]
def test_wrong_cache_option_is_refused(cache: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"function.*(cache takes a number of seconds above 0|list of names)"):

        @cpu_route("/x", cache=cache)
        def function() -> None: ...


def test_stream_is_refused_for_a_cache() -> None:
    with pytest.raises(ConfigurationError, match=r"streaming.*keeps no streams; .* leave out cache="):
        cpu_route("/x", cache=1)(caching_jobs.streaming)


@cpu_route("/request", cache=60)
def takes_request(request: Request) -> None: ...


@on_loop
async def test_handler_with_request_must_name_its_headers() -> None:
    with pytest.raises(ConfigurationError, match=r"takes_request.*cache=Cache\(60, headers=\[\"accept\"\]\)"):
        async with at_work(Service(takes_request), Settings()):
            pass
