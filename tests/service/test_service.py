"""service.py, and whole requests from the socket to a worker and back."""

from __future__ import annotations

import asyncio
import datetime
import enum
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest

import faulty
import service_jobs
from system import descendants, wait_until, workers_below
from tinysvc import (
    ConfigurationError,
    HTTPError,
    Pool,
    Query,
    Request,
    Service,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
)
from tinysvc.core.settings import Settings, SettingsError
from tinysvc.server.server import Server
from tinysvc.testing import serving


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with (
        serving(faulty, shutdown_timeout=1.0, raise_errors=False) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client


def assert_healthy(client: httpx.Client) -> None:
    wait_until(lambda: client.get("/readyz").status_code == 200, "every worker is back")
    assert client.get("/cpu/1").json() == {"number": 1}


# What binds and what comes back


def test_io_and_cpu(client: httpx.Client) -> None:
    assert client.get("/io/7").json() == {"number": 7}
    assert client.get("/cpu/7").json() == {"number": 7}
    assert client.get("/lookup").text == "value"
    answer = client.post("/predict", json={"values": [1, 2.5], "name": "é"})
    assert answer.json() == {"score": 7.0, "name": "é"}


def test_parameters_of_every_place(client: httpx.Client) -> None:
    answer = client.post(
        "/everything/a%2Fb%20c?limit=9&flag=true",
        json={"x": 1, "y": 2},
        headers={"user-agent": "test", "cookie": "session=s1; other=2"},
    )
    assert answer.json() == {
        "method": "POST",
        "name": "a/b c",
        "point": {"x": 1, "y": 2},
        "agent": "test",
        "session": "s1",
        "limit": 9,
        "flag": True,
    }


def test_422_has_the_place_of_each_fault(client: httpx.Client) -> None:
    answer = client.post("/everything/n?limit=10&flag=maybe", json={"x": 1, "y": "b"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["place"] for error in answer.json()["errors"]] == ["$.y", "query.limit", "query.flag"]
    answer = client.post("/predict", json={"values": [1, 2, 3, "four"]})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"place": "$.values[3]", "detail": "Expected `float`, got `str`"}]
    assert client.get("/cpu/seven").json()["errors"] == [
        {"place": "path.number", "detail": "Expected `int`, got 'seven'"}
    ]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"values": [1]}', "application/json", 200),
        (b'{"values": [1]}', "application/vnd.x+json; charset=utf-8", 200),
        (b'{"values": [1]}', "text/plain", 415),
        (b'{"values": [1', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"values": [1e999]}', "application/json", 422),
        (b'{"name": "\xff"}', "application/json", 400),
        (b"\xff\xfe{\x00}\x00", "application/json", 400),
        (b"", "application/json", 422),
    ],
)
def test_body_that_is_not_json(client: httpx.Client, content: bytes, content_type: str, status: int) -> None:
    answer = client.post("/predict", content=content, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text


def test_raw_body_and_response(client: httpx.Client) -> None:
    answer = client.post("/raw", content=b"abc\x00")
    assert (answer.content, answer.headers["x-method"], answer.headers["content-type"]) == (
        b"\x00cba",
        "POST",
        "text/x-reversed",
    )


def test_generator_in_a_worker_streams(client: httpx.Client) -> None:
    with client.stream("GET", "/stream/1000") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert list(answer.iter_lines())[-1] == '{"i":999}'
    assert client.get("/stream/0").content == b""


def test_stream_that_fails_is_cut_off(client: httpx.Client) -> None:
    answer = client.get("/early-failure")
    assert (answer.status_code, answer.json()["detail"]) == (418, "before the first word")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/late-failure")
    assert_healthy(client)


def test_methods(client: httpx.Client) -> None:
    assert client.put("/cpu/1").status_code == 405
    assert client.put("/cpu/1").headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.options("/predict").headers["allow"] == "OPTIONS, POST"
    head = client.head("/cpu/1")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "12", b"")
    assert client.get("/nowhere").status_code == 404


def test_health_checks(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {
        "status": "ready",
        "pools": {"default": {"workers": 2, "ready": 2, "queued": 0}},
    }


# Faults

FAULTS = [
    ("/fault/raise", 500, "a secret"),
    ("/fault/hang", 504, "ran past its deadline of 0.2 s"),
    ("/fault/exit", 500, "exited with status 3"),
    ("/fault/segfault", 500, "SIGSEGV"),
    ("/fault/unencodable", 500, "object"),
    ("/fault/unpicklable", 500, "function"),
    ("/fault/picky", 500, "jobs.Picky: picky"),
    ("/fault/system-exit", 500, "SystemExit: 7"),
    ("/fault/garbage", 500, "was killed: it sent"),
    ("/fault/recursion", 500, "RecursionError"),
    ("/fault/memory", 500, "MemoryError"),
    ("/fault/header", 500, "x-a"),
    ("/io-fault/raise", 500, "a secret"),
    ("/io-fault/cancelled", 500, "CancelledError"),
    ("/io-fault/system-exit", 500, "SystemExit: 7"),
    ("/io-fault/keyboard-interrupt", 500, "KeyboardInterrupt"),
    ("/io-fault/unencodable", 500, "object"),
    ("/io-fault/header", 500, "x-a"),
]


@pytest.mark.parametrize(("path", "status", "logged"), FAULTS)
def test_failed_handler_gets_500_and_a_log_line(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, path: str, status: int, logged: str
) -> None:
    answer = client.get(path, headers={"x-request-id": "3f2a-1"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 500:
        assert "detail" not in answer.json()  # the inside stays inside
        assert "secret" not in answer.text
    assert_healthy(client)
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(records) == 1, [record.getMessage() for record in records]
    assert records[0].getMessage().startswith(f"GET {path} (request 3f2a-1): ")
    assert logged in records[0].getMessage()
    assert "src/tinysvc" not in records[0].getMessage() or "header" in path


def test_dead_worker_is_worker_died(client: httpx.Client) -> None:
    assert client.get("/fault/exit").json()["type"] == "urn:tinysvc:worker-died"


def test_http_error_of_a_worker_is_the_response(client: httpx.Client) -> None:
    answer = client.get("/fault/http-error")
    assert (answer.status_code, answer.json()["detail"], answer.headers["x-why"]) == (
        409,
        "conflict in a worker",
        "test",
    )


@io_route("/leaves")
async def leaves() -> AsyncIterator[str]:
    yield "a"
    raise SystemExit(7)


def test_system_exit_in_a_stream_does_not_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(leaves, one), raise_errors=False) as url:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{url}/leaves")
        assert httpx.get(f"{url}/same").is_success
    assert caplog.text.count("SystemExit: 7") == 1


@pytest.mark.parametrize("path", ["/fault/print", "/fault/signals"])
def test_odd_but_harmless(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    assert_healthy(client)


def test_forked_child_ends_with_its_worker(client: httpx.Client, tmp_path: Path) -> None:
    child = client.get("/fault/fork", params={"path": str(tmp_path / "child")}).json()["child"]
    assert_healthy(client)
    assert child in descendants(os.getpid())

    def end_a_worker() -> bool:
        """Either worker may take the request, and not only that of the child."""
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        assert client.get("/fault/fork-exit", params={"path": str(path)}).status_code == 500
        assert_healthy(client)
        return child not in descendants(os.getpid())

    wait_until(end_a_worker, "the child has ended with its worker")


# Many at once; clients that leave


@pytest.mark.asyncio
async def test_200_clients_get_their_own_responses(client: httpx.Client) -> None:
    async def user(number: int) -> list[int]:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        got = []
        for turn in range(6):
            kind = "cpu" if (number + turn) % 2 else "io"
            writer.write(f"GET /{kind}/{number * 100 + turn} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            got.append(json.loads(await reader.readexactly(length))["number"])
        writer.close()
        await writer.wait_closed()
        return got

    answers = await asyncio.gather(*(user(number) for number in range(200)))
    assert answers == [[number * 100 + turn for turn in range(6)] for number in range(200)]


def _send(url: httpx.URL, request: str) -> Any:
    import socket

    connection = socket.create_connection((url.host, url.port), 20)
    connection.sendall(request.encode())
    return connection


def test_disconnect_stops_a_get_job(client: httpx.Client, tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    before = set(workers_below(os.getpid()))
    connection = _send(client.base_url, f"GET /wait?started={started}&go={go} HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(started.exists, "the job runs")
    wait_until(lambda: client.get("/readyz").status_code == 200, "ready")
    connection.close()
    wait_until(lambda: set(workers_below(os.getpid())) != before, "its worker was replaced")
    assert_healthy(client)


def test_disconnect_does_not_stop_a_post_job(client: httpx.Client, tmp_path: Path) -> None:
    started, go, done = tmp_path / "started", tmp_path / "go", tmp_path / "done"
    before = set(workers_below(os.getpid()))
    target = f"/work?started={started}&go={go}&done={done}"
    connection = _send(client.base_url, f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    wait_until(started.exists, "the job runs")
    connection.close()
    assert client.get("/cpu/1").status_code == 200
    go.touch()
    wait_until(done.exists, "the job ran to its end")
    assert set(workers_below(os.getpid())) == before


def test_inner_services_share_their_pools(caplog: pytest.LogCaptureFixture) -> None:
    inner = Service(service_jobs.train, pools={"training": Pool(workers=1)}, prefix="/a")
    other = Service(service_jobs.trained, pools={"training": Pool(workers=1), "gpu": Pool()}, prefix="/b")
    outer = Service(Service(inner), other)
    assert outer.pools == outer.options["pools"] == {"training": Pool(workers=1), "gpu": Pool()}
    assert not caplog.records
    with pytest.raises(
        ConfigurationError,
        match=r"the pool training is configured twice, as Pool\(workers=2.* and as Pool\(workers=1.*configure it once",
    ):
        Service(inner, pools={"training": Pool(workers=2)})
    Service(Service(one, queue_size=1))
    assert "the options {'queue_size': 1} of a service inside another service have no effect" in caplog.text


def test_wrong_pools_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"the pool gpu takes Pool\(...\) or a concurrent.futures.Executor, not 1"):
        Service(one, pools={"gpu": 1})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("word", "meant"), [("midleware", "middleware"), ("error_handler", "error_handlers"), ("prot", "port")]
)
def test_mistyped_keyword_is_refused(word: str, meant: str) -> None:
    keyword: dict[str, Any] = {word: []}
    with pytest.raises(SettingsError, match=rf"Service\(...\) takes no '{word}'; did you mean {meant}\?"):
        Service(one, **keyword)


# What is wrong with a handler is said at start-up


def start_up_error(*parts: Any) -> str:
    with pytest.raises(ConfigurationError) as raised, serving(Service(*parts)):
        pass
    return str(raised.value)


@cpu_resource
def on_cpu() -> int:
    return 1


@io_resource
def on_io() -> int:
    return 1


@cpu_route("/")
async def asynchronous() -> None: ...


@io_route("/{a}")
async def no_parameter() -> None: ...


@io_route("/")
async def unannotated(what) -> None: ...  # type: ignore[no-untyped-def]


@io_route("/")
async def undecodable(what: httpx.Client) -> None: ...


@io_route("/", methods=["POST"])
async def two_bodies(a: dict[str, int], b: list[int]) -> None: ...


@io_route("/")
async def star(*args: int) -> None: ...


@io_route("/")
async def wrong_side(on_cpu) -> None: ...  # type: ignore[no-untyped-def]


@cpu_route("/")
def wrong_side_too(on_io) -> None: ...  # type: ignore[no-untyped-def]


@io_route("/")
async def wrong_side_typed(on_cpu: int) -> None: ...


@cpu_route("/")
def wrong_side_too_typed(on_io: dict[str, int]) -> None: ...


@io_route("/same")
async def one() -> None: ...


@io_route("/same")
async def two() -> None: ...


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([asynchronous], "asynchronous .*test_service.py:.*make it a plain def"),
        ([no_parameter], r"no_parameter .*the path has \{a\}.*add it or rename one"),
        ([unannotated], "unannotated .*nothing fills the parameter what.*annotate it"),
        ([undecodable], "undecodable .*cannot read a value of type .*Client.*use a dataclass"),
        ([two_bodies], "two_bodies .*both a and b take the body.*one dataclass"),
        ([star], r"star .*the parameter \*args: int cannot be filled by its name"),
        ([wrong_side, on_cpu], "wrong_side .*on_cpu comes from @cpu_resource.*use @io_resource"),
        ([wrong_side_too, on_io], "wrong_side_too .*on_io comes from @io_resource.*worker process"),
        ([one, two], r"two .*GET /same already has a handler, .*one \(.*test_service.py:\d+\); change path or methods"),
        ([wrong_side_typed, on_cpu], "wrong_side_typed .*on_cpu comes from @cpu_resource.*or rename the parameter"),
        ([wrong_side_too_typed, on_io], "wrong_side_too_typed .*on_io comes from @io_resource.*use @cpu_resource"),
        ([wrong_side_typed], r"on_cpu is a resource of its module.*name it too.*Service\(wrong_side_typed, on_cpu\)"),
        ([cpu_route("/")(lambda: None)], "lambda.*define it with def at the module's top level"),
        ([42], "42 is none of them; decorate"),
    ],
)
def test_start_up_errors_name_function_place_and_remedy(parts: list[Any], says: str) -> None:
    import re

    assert re.search(says, start_up_error(*parts), re.DOTALL)


def test_closure_under_cpu_route_is_refused() -> None:
    @cpu_route("/")
    def inner() -> None: ...

    assert "defined inside another function" in start_up_error(inner)


def test_function_hidden_by_another_decorator_is_refused() -> None:
    assert "is not this function" in start_up_error(hidden.__wrapped__)


def _wrap(function: Any) -> Any:
    import functools

    return functools.wraps(function)(lambda *args: function(*args))


@_wrap
@cpu_route("/hidden")
def hidden() -> None: ...


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no-slash", "must begin with"),
        ("/{a", "cannot read"),
        ("/x{a}", "cannot read"),
        ("/{a:path}/b", "put it at the end"),
        ("/{a}/{a}", "two parameters of one name"),
    ],
)
def test_malformed_paths_are_refused(path: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        io_route(path)(lambda: None)


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not 'FETCH'"):
        io_route("/", methods=["fetch"])(lambda: None)


# Composition


def test_decorators_return_the_function_untouched() -> None:
    assert faulty.predict(faulty.Features([1.0], "a"), 3.0) == {"score": 3.0, "name": "a"}
    assert faulty.cpu.__name__ == "cpu"


def test_services_under_prefixes() -> None:
    service = Service(Service(one, prefix="/a"), Service(two, prefix="/b"), prefix="/v1")
    assert [path for path, _ in service.all_routes()] == ["/v1/a/same", "/v1/b/same"]
    with serving(service) as url:
        assert httpx.get(f"{url}/v1/b/same").status_code == 204
        assert httpx.get(f"{url}/same").status_code == 404


def test_two_resources_of_one_name_are_refused() -> None:
    def make() -> Any:
        def on_io() -> int:
            return 2

        return io_resource(on_io)

    with pytest.raises(ConfigurationError, match="another resource on_io"):
        Service(on_io, make(), one)


def wrapped_above(function: Any) -> Any:
    import functools

    @functools.wraps(function)
    async def check(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("this check must not be skipped")

    return check


@wrapped_above
@io_route("/guarded")
async def guarded() -> None: ...


def test_decorator_above_ours_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"guarded .*put the tinysvc decorator on top"):
        Service(guarded)


def test_wrong_uses_of_the_decorators_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'one .*write @io_route\("/path"\)'):
        io_route(one)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is async, but a cpu_resource"):

        @cpu_resource
        async def late() -> None: ...

    with pytest.raises(ConfigurationError, match="methods takes a list of names"):
        io_route("/", methods=None)(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="a number of seconds, 0 or more, not '2'"):
        cpu_route("/", timeout="2")(lambda: None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="cannot read the path '/<name>'"):
        io_route("/<name>")(lambda: None)


def test_http_error_takes_error_statuses_only() -> None:
    with pytest.raises(ValueError, match="from 400 to 599, not 200"):
        HTTPError(200)


# What a route says of its requests


async def _held(request: Request, leave: asyncio.Event, ended: asyncio.Queue[str]) -> str:
    ended.put_nowait("called")
    try:
        await leave.wait()
    except asyncio.CancelledError:
        ended.put_nowait("cancelled")
        raise
    ended.put_nowait("finished")
    return ""


@pytest.mark.parametrize(
    ("method", "on_disconnect", "end"),
    [
        ("GET", None, "cancelled"),
        ("GET", "finish", "finished"),
        ("POST", None, "finished"),
        ("POST", "cancel", "cancelled"),
    ],
)
@pytest.mark.asyncio
async def test_on_disconnect_of_an_io_route(method: str, on_disconnect: Any, end: str) -> None:
    leave, ended = asyncio.Event(), asyncio.Queue[str]()

    @io_route("/", methods=[method], on_disconnect=on_disconnect)
    async def held(request: Request) -> str:
        return await _held(request, leave, ended)

    async with asyncio.timeout(20), Server(Service(held), Settings(port=0)).listening() as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await ended.get() == "called"
        writer.transport.abort()
        if end == "finished":
            async with httpx.AsyncClient() as others:
                for _ in range(3):  # meanwhile the server has seen it
                    assert (await others.get(f"{url}/livez")).status_code == 200
            leave.set()
        assert await ended.get() == end


@io_route("/small", methods=["POST"], max_body_size=5)
async def small(body: bytes) -> int:
    return len(body)


@io_route("/plain", methods=["POST"])
async def plain(body: bytes) -> int:
    return len(body)


@io_route("/big", methods=["POST"], max_body_size=1000)
async def big(body: bytes) -> int:
    return len(body)


def test_max_body_size_of_a_route_overrides_the_server_s() -> None:
    service = Service(small, plain, big, service_jobs.measure, max_body_size=100)
    with serving(service) as url, httpx.Client(base_url=url, timeout=20) as client:
        for path, limit in [("/small", 5), ("/plain", 100), ("/big", 1000), ("/measure", 7)]:
            for size, status in [(limit, 200), (limit + 1, 413), (200_000, 413)]:
                assert client.post(path, content=bytes(size)).status_code == status, (path, size)
                assert client.post(path, content=iter([bytes(size)])).status_code == status, (path, size)


@pytest.mark.asyncio
async def test_io_request_above_the_limit_gets_503_at_once() -> None:
    leave, ended = asyncio.Event(), asyncio.Queue[str]()

    @io_route("/held")
    async def held(request: Request) -> str:
        return await _held(request, leave, ended)

    server = Server(Service(held), Settings(port=0, max_io_requests=2))
    async with asyncio.timeout(20), server.listening() as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        two = [asyncio.create_task(client.get("/held")) for _ in range(2)]
        assert [await ended.get(), await ended.get()] == ["called", "called"]
        refused = await client.get("/held")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await client.get("/livez")).status_code == 200
        leave.set()
        assert {(await task).status_code for task in two} == {200}
        assert (await client.get("/held")).status_code == 200


# Where a handler is served


@io_route("/notes")
@io_route("/notes/{id}")
@io_route("/files/{path:path}")
async def notes(id: int = 0, path: str = "") -> None: ...  # noqa: A002


class Colour(enum.Enum):
    RED = "red"


@io_route("/at/{when}/{colour}/{sure}")
async def at(when: datetime.datetime, colour: Colour, sure: bool, also: Annotated[list[Colour], Query()]) -> list[Any]:
    return [when, colour, sure, also]


def test_url_for_writes_what_the_handler_reads() -> None:
    service = Service(at)
    when = datetime.datetime(2020, 1, 2, 3, 4, tzinfo=datetime.UTC)
    path = service.url_for(at, when=when, colour=Colour.RED, sure=True, also=[Colour.RED, Colour.RED])
    with serving(service) as url:
        assert httpx.get(url + path).json() == ["2020-01-02T03:04:00Z", "red", True, ["red", "red"]]


@io_route("/here")
def here(request: Request) -> str:
    return request.url_for(here, page=2)


@cpu_route("/there")
def there(request: Request) -> str:
    return request.url_for(here)


def test_request_url_for_includes_outer_prefixes() -> None:
    inner = Service(here, there, prefix="/inner")
    assert inner.url_for(here) == "/inner/here"
    with serving(Service(inner, prefix="/outer"), cpu_workers=1, raise_errors=False) as url:
        assert httpx.get(f"{url}/outer/inner/here").text == "/outer/inner/here?page=2"
        assert httpx.get(f"{url}/outer/inner/there").status_code == 500
    with pytest.raises(RuntimeError, match="call it in an @io_route"):
        there(Request("GET", "/there"))


@io_route("/lost")
def lost(request: Request) -> str:
    return request.url_for(one)


def test_wrong_url_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(lost), raise_errors=False) as url:
        assert httpx.get(f"{url}/lost").status_code == 500
    assert "is served by no route of this service; url_for has no path for it" in caplog.text


@io_route("/{rest:path}")
async def anywhere(rest: str) -> str:
    return rest


def test_url_for_makes_no_url_of_another_host() -> None:
    service = Service(anywhere)
    path = service.url_for(anywhere, rest="/evil.example/x")
    assert path == "/%2Fevil.example/x"
    with serving(service) as url:
        assert httpx.get(url + path).text == "/evil.example/x"
    for value in (None, ["a"]):
        with pytest.raises(ConfigurationError, match=r"needs the path parameters of .*: rest"):
            service.url_for(anywhere, rest=value)


def test_url_for() -> None:
    service = Service(Service(notes, prefix="/v1"), one)
    assert service.url_for(one) == "/same"
    assert service.url_for(notes) == "/v1/notes"
    assert service.url_for(notes, id=7) == "/v1/notes/7"
    assert service.url_for(notes, id="a/b c", tag=["x", "y&z"]) == "/v1/notes/a%2Fb%20c?tag=x&tag=y%26z"
    assert service.url_for(notes, path="a/b c") == "/v1/files/a/b%20c"
    assert service.url_for(notes, handler="a", q=None) == "/v1/notes?handler=a"
    with pytest.raises(ConfigurationError, match=r"two .*is served by no route of this service"):
        service.url_for(two)
    with pytest.raises(ConfigurationError, match=r"needs the path parameters of /\{a\}: a"):
        Service(no_parameter).url_for(no_parameter)
