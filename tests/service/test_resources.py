"""resources.py: who needs whom, what is opened when, and what is closed when something fails."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from anyio import create_task_group
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

import resources_jobs
from system import wait_until
from tinysvc import ConfigurationError, Header, Query, Request, Service, cpu_resource, cpu_route, io_resource, io_route
from tinysvc.runtime.open_resources import ResourceFailed
from tinysvc.testing import serving

TOKEN = {"authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("record") / "log"
    path.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESOURCES_LOG", str(path))
        yield path


@pytest.fixture(scope="module")
def url(record: Path) -> Iterator[str]:
    with serving(resources_jobs, cpu_workers=1, raise_errors=False) as url:
        assert record.read_text().split("\n") == ["config opens", "database opens", ""]
        yield url
    assert record.read_text().endswith("database closes\nconfig closes\n")


@pytest.fixture
def client(url: str, record: Path) -> Iterator[httpx.Client]:
    record.write_text("")
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def lines(record: Path) -> list[str]:
    return record.read_text().splitlines()


def test_a_resource_of_the_request(client: httpx.Client) -> None:
    assert client.get("/me", headers=TOKEN).json() == {"name": "ada", "database": "main"}
    assert client.get("/me", headers={"authorization": "bEARER  secret"}).status_code == 200


@pytest.mark.parametrize("path", ["/me", "/work", "/batch?n=1"])
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic secret", "secret"])
def test_who_is_not_known_is_told_so(client: httpx.Client, path: str, header: str | None) -> None:
    answer = client.get(path, headers={"authorization": header} if header else {})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "detail" in answer.json()


def test_a_key_that_is_missing(client: httpx.Client) -> None:
    assert client.get("/key", headers={"x-key": "k", "user-agent": "a"}).text == "a:k"
    answer = client.get("/key")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'ApiKey header="x-key"')


def test_each_is_opened_once_a_request_and_closed_in_reverse(client: httpx.Client, record: Path) -> None:
    assert client.get("/twice", headers=TOKEN).json() == ["ada", "main/ada"]
    assert lines(record) == ["user", "begin", "commit"]


def test_an_error_of_the_handler_is_told_to_them(client: httpx.Client, record: Path) -> None:
    assert client.get("/fails", headers=TOKEN).status_code == 409
    assert lines(record) == ["user", "begin", "rollback HTTPError"]


def test_a_resource_does_not_swallow_an_error(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/swallowed").status_code == 500
    assert "not to be swallowed" in caplog.text


def test_they_stay_open_until_a_stream_has_ended(client: httpx.Client, record: Path) -> None:
    with client.stream("GET", "/stream", headers=TOKEN) as answer:
        assert "".join(answer.iter_text()) == "one main/ada"
    assert lines(record) == ["user", "begin", "commit"]


def test_a_stream_that_fails(client: httpx.Client, record: Path) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/broken", headers=TOKEN)
    assert lines(record) == ["user", "begin", "rollback LookupError"]


def test_a_stream_whose_client_leaves(client: httpx.Client, record: Path) -> None:
    with client.stream("GET", "/endless", headers=TOKEN) as answer:
        pieces = answer.iter_text()  # kept: httpx closes the stream with it
        assert next(pieces) == "data: first\n\n"
        assert lines(record) == ["user", "begin"]
    wait_until(lambda: lines(record)[2:] == ["rollback CancelledError"], "the resource is closed")


def test_a_def_runs_in_a_thread(client: httpx.Client, record: Path) -> None:
    assert client.post("/threaded", content=b"x" * 3).text == "POST /threaded xxx"
    assert lines(record) == ["thread begins", "thread ends"]


def test_of_a_socket(client: httpx.Client, url: str, record: Path) -> None:
    with connect(url.replace("http", "ws") + "/socket", additional_headers=TOKEN) as socket:
        assert socket.recv(timeout=20) == "main/ada"
    wait_until(lambda: lines(record) == ["user", "begin", "commit"], "the resource is closed")
    with pytest.raises(InvalidStatus, match="401"):
        connect(url.replace("http", "ws") + "/socket").close()


def test_of_a_socket_whose_handler_fails(url: str, record: Path) -> None:
    record.write_text("")
    with connect(url.replace("http", "ws") + "/socket-fails", additional_headers=TOKEN) as socket:
        assert socket.recv(timeout=20) == "main/ada"
        with pytest.raises(ConnectionClosedError, match="1011"):
            socket.recv(timeout=20)
    wait_until(lambda: lines(record) == ["user", "begin", "rollback LookupError"], "the resource is closed")


def test_a_worker_is_given_those_of_the_request(client: httpx.Client) -> None:
    assert client.get("/work", headers=TOKEN).json() == [[10, 20], "ada", "main"]


def test_a_batch_is_given_each_requests_own(client: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda n: client.get(f"/batch?n={n}", headers=TOKEN).text, range(4))
        assert list(answers) == [f"{n} ada 10" for n in range(4)]


def test_what_is_cached_is_for_who_may_see_it(client: httpx.Client, record: Path) -> None:
    def ask(key: str, **headers: str) -> httpx.Response:
        return client.get("/cached", headers={"x-key": key, "user-agent": "a", **headers})

    assert ask("1", **TOKEN).text == ask("1", **TOKEN).text == "ada a:1"
    assert ask("2", **TOKEN).text == "ada a:2"
    assert ask("1").status_code == 401
    assert lines(record).count("computed") == 2


def test_what_cannot_be_sent_to_a_worker(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/unpicklable").status_code == 500
    assert "the resources lock of a request cannot be sent to a worker" in caplog.text


WRONG = "size=x&n=y&limit=z"
PLACES = ["query.limit", "query.size", "query.n"]


@pytest.mark.parametrize("path", ["/sized", "/cpu-sized", "/batch-sized", "/cached-sized", "/socket-sized"])
def test_wrong_parameters_of_handler_and_resources_are_one_answer(
    client: httpx.Client, record: Path, path: str
) -> None:
    answer = client.get(f"{path}?{WRONG}", headers=TOKEN)
    assert (answer.status_code, [error["place"] for error in answer.json()["errors"]]) == (422, PLACES)
    assert client.get(f"{path}?size=1&limit=2", headers=TOKEN).json()["errors"] == [
        {"place": "query.n", "detail": "is missing"}
    ]
    assert lines(record) == []  # nothing was opened


@pytest.mark.parametrize("path", ["/sized", "/cpu-sized", "/batch-sized", "/cached-sized", "/socket-sized"])
def test_missing_token_is_the_answer_whatever_else_is_wrong(client: httpx.Client, record: Path, path: str) -> None:
    answer = client.get(f"{path}?{WRONG}")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "errors" not in answer.json()
    assert lines(record) == []


def test_right_parameters_of_handler_and_resources(client: httpx.Client, record: Path) -> None:
    for path in ("/sized", "/cpu-sized", "/batch-sized", "/cached-sized"):
        assert client.get(f"{path}?size=1&limit=2&n=3", headers=TOKEN).text == "1 2 3 ada"
    assert lines(record) == ["limit opens", "user", "size opens", "size closes", "limit closes"] * 4


def test_refusal_of_a_resource_comes_before_the_body(client: httpx.Client, record: Path) -> None:
    wrong = {"authorization": "Bearer wrong"}
    assert client.post("/sized-body?size=1&limit=2", headers=wrong, content=b"{").status_code == 401
    assert client.post("/sized-body?size=1&limit=2", headers=TOKEN, content=b"{").status_code == 400
    record.write_text("")
    answer = client.post("/sized-body?size=x&limit=2", headers=TOKEN, content=b"{")
    assert (answer.status_code, answer.json()["detail"][:10]) == (422, "query.size")
    assert lines(record) == []


def test_body_is_not_read_before_the_token_is_known(url: str) -> None:
    head = b"POST /sized-body?%s HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n%s\r\n"
    host, port = url.removeprefix("http://").split(":")
    for query, token, status in (
        (b"size=1&limit=2", b"", b"401"),
        (b"size=1&limit=2", b"authorization: Bearer wrong\r\n", b"401"),
        (b"size=x&limit=2", b"authorization: Bearer secret\r\n", b"422"),
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head % (query, token))  # and nothing of the body
            assert connection.recv(4096).split()[1] == status


# What is wrong is said at start-up


def said(*parts: Any) -> str:
    with pytest.raises(ConfigurationError) as raised, serving(Service(*parts)):
        pass
    return str(raised.value)


def resource(name: str, function: Any, kind: Any = io_resource) -> Any:
    function.__name__ = name
    return kind(function)


@io_route("/")
async def asks(a) -> None: ...  # type: ignore[no-untyped-def]


def test_a_circle() -> None:
    async def one(b): ...  # type: ignore[no-untyped-def]
    async def two(c): ...  # type: ignore[no-untyped-def]
    async def three(b): ...  # type: ignore[no-untyped-def]

    found = said(asks, resource("a", one), resource("b", two), resource("c", three))
    assert "these resources need each other: b -> c -> b; cut one" in found
    assert "test_resources.py" in found


def test_a_parameter_that_nothing_fills() -> None:
    async def one(limit: int = 3) -> None: ...

    assert "one" in (found := said(asks, resource("a", one)))
    assert "nothing fills its parameter limit: int = 3: there is no io_resource of this name" in found


def test_a_cpu_resource_asks_for_cpu_resources() -> None:
    @cpu_resource
    def a(request: Any) -> None: ...

    @cpu_route("/")
    def handler(a: Any) -> None: ...

    assert "can ask for other cpu_resources only" in said(handler, a)


def test_an_io_resource_asks_for_io_resources() -> None:
    @cpu_resource
    def b() -> None: ...

    @io_resource
    async def a(b: Any) -> None: ...

    assert "b: Any: that is a cpu_resource, which is opened in the workers" in said(asks, a, b)


def test_a_shared_one_needs_shared_ones() -> None:
    @cpu_resource
    def b() -> None: ...

    @cpu_resource(shared=True)
    def a(b: Any) -> None: ...

    @cpu_route("/")
    def handler(a: Any) -> None: ...

    assert "b, which it asks for, is opened in each of them: make that @cpu_resource(shared=True) too" in said(
        handler, a, b
    )


def test_what_was_opened_is_closed_when_a_later_one_fails() -> None:
    closed = []

    @io_resource
    async def b() -> AsyncIterator[int]:
        yield 1
        closed.append("b")

    @io_resource
    async def a(b: int) -> int:
        raise OSError("no database")

    with (
        pytest.raises(ResourceFailed, match=r"the resource a cannot be opened:\n(.*\n)+.*no database"),
        serving(Service(asks, a, b)),
    ):
        pass
    assert closed == ["b"]


ends: list[str] = []


@io_resource
async def last() -> AsyncIterator[int]:
    yield 1
    ends.append("last")
    raise LookupError("last cannot be closed")


@io_resource
def middle(last: int) -> Iterator[int]:
    yield 2
    ends.append("middle")
    raise OSError("middle cannot be closed")


@io_resource
async def first(middle: int) -> AsyncIterator[int]:
    yield 3
    ends.append("first")


@io_resource
async def unopened(first: int) -> AsyncIterator[int]:
    raise ValueError("cannot be opened")
    yield first


@io_route("/")
async def wants_first(first: int) -> None: ...


@io_route("/")
async def wants_all(unopened: int) -> None: ...


@pytest.mark.parametrize(("handler", "error"), [(wants_first, ExceptionGroup), (wants_all, ResourceFailed)])
def test_each_is_closed_though_others_cannot_be(
    handler: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    ends.clear()
    with pytest.raises(error), serving(Service(handler, first, middle, last, unopened)):
        pass
    assert ends == ["first", "middle", "last"]
    of_middle, of_last = [record.getMessage() for record in caplog.records]
    assert of_middle.startswith("the resource middle cannot be closed:\n")
    assert of_middle.endswith("OSError: middle cannot be closed")
    assert of_last.endswith("LookupError: last cannot be closed")
    assert of_middle.count("  File ") == of_last.count("  File ") == 1


def test_what_is_not_annotated_is_not_of_the_request() -> None:
    """Else a default would be the client's to choose."""

    async def one(dsn: str = "sqlite://") -> None: ...

    assert "nothing fills its parameter dsn" in said(asks, resource("a", one))


# Override


@io_resource
async def greeting() -> str:
    raise OSError("not in a test")


@io_resource
async def name(who: Annotated[str, Query()]) -> str:
    return who


@cpu_resource
def model() -> int:
    raise OSError("not in a test")


@io_route("/greet")
async def greet(greeting: str, name: str) -> str:
    return f"{greeting} {name} {threading.current_thread().name[:7]}"


@cpu_route("/score")
def score(model: int, name: str) -> str:
    return f"{model} {name}"


def fake_model() -> Iterator[int]:
    yield 7


def test_override_by_values_and_by_functions() -> None:
    service = Service(Service(greet, score, greeting, name, model, prefix="/v1"))

    async def polite(request) -> str:  # type: ignore[no-untyped-def]
        return f"dear {request.query['who'][0]}"

    with serving(service.override(greeting="hi", name=polite, model=42), cpu_workers=1) as url:
        assert httpx.get(f"{url}/v1/greet?who=ada").text == "hi dear ada tinysvc"
        assert httpx.get(f"{url}/v1/score?who=ada").text == "42 dear ada"
    with serving(service.override(greeting="hi", name="bob", model=fake_model), cpu_workers=1) as url:
        assert httpx.get(f"{url}/v1/score").text == "7 bob"
    with pytest.raises(ResourceFailed), serving(Service(greet, greeting, name)):
        pass  # the service itself is as it was


def test_override_names_what_there_is() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no resource 'greting'; did you mean greeting\?"):
        Service(greet, greeting, name).override(greting=1)


def test_an_override_that_does_not_pickle(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with (
        pytest.raises(
            ConfigurationError,
            match=r"overrides a cpu_resource, .*lock.*worker: .*give a function",
        ),
        serving(Service(score, name, model).override(model=threading.Lock(), name="x")),
    ):
        pass


def test_a_header_is_named_like_its_parameter() -> None:
    @io_resource
    async def a(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    @io_route("/tenant")
    async def tenant(a: str) -> str:
        return a

    with serving(Service(tenant, a)) as url:
        assert httpx.get(f"{url}/tenant", headers={"x-tenant": "t"}).text == "t"
        assert httpx.get(f"{url}/tenant").json()["errors"] == [{"place": "header.x-tenant", "detail": "is missing"}]


# A client that disconnects while resources close


closing_log: list[str] = []
may_close: threading.Event


@io_resource
async def slow_to_close(request: Request) -> AsyncIterator[str]:
    yield "open"
    closing_log.append("closing")
    await asyncio.to_thread(may_close.wait, 20)
    closing_log.append("closed")


@io_resource
def slow_thread(request: Request) -> Iterator[str]:
    yield "open"
    closing_log.append("closing")
    may_close.wait(20)
    closing_log.append("closed")


@io_route("/slow")
async def slow(slow_to_close: str) -> str:
    return slow_to_close


@io_route("/slow-thread")
def slow_in_thread(slow_thread: str) -> str:
    return slow_thread


@io_route("/slow-stream")
async def slow_stream(slow_to_close: str) -> AsyncIterator[str]:
    yield slow_to_close


@io_route("/slow-timeout", timeout=0.05)
async def slow_timeout(slow_to_close: str) -> str:
    return slow_to_close


@cpu_route("/slow-cpu")
def slow_cpu(slow_to_close: str) -> str:
    return slow_to_close


@pytest.mark.parametrize("path", ["/slow", "/slow-thread", "/slow-stream", "/slow-timeout", "/slow-cpu"])
def test_cleanup_runs_to_its_end_when_the_client_disconnects(path: str) -> None:
    global may_close
    may_close = threading.Event()
    closing_log.clear()
    routes = slow, slow_in_thread, slow_stream, slow_timeout, slow_cpu
    with serving(Service(*routes, slow_to_close, slow_thread), cpu_workers=1, raise_errors=False) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            wait_until(lambda: "closing" in closing_log, "the resource closes")
        for _ in range(3):  # by then the server has seen the disconnect
            assert httpx.get(f"{url}/livez").status_code == 200
        may_close.set()
        wait_until(lambda: "closed" in closing_log, "the resource has closed")
    assert closing_log == ["closing", "closed"]


def test_deadline_of_a_route_does_not_cancel_cleanup() -> None:
    global may_close
    may_close = threading.Event()
    closing_log.clear()
    with serving(Service(slow_timeout, slow_to_close)) as url:
        timer = threading.Timer(0.3, may_close.set)  # long after the deadline
        timer.start()
        assert httpx.get(f"{url}/slow-timeout").text == "open"
        timer.join()
    assert closing_log == ["closing", "closed"]


@io_resource
async def exits(request: Request) -> AsyncIterator[str]:
    try:
        yield "open"
    finally:
        raise SystemExit(3)


@io_route("/exits")
async def exiting(exits: str) -> str:
    return exits


@io_route("/exits-stream")
async def exiting_stream(exits: str) -> AsyncIterator[str]:
    yield exits
    await asyncio.sleep(0)
    while True:
        yield "x" * 65536


@io_resource
async def exits_at_once() -> AsyncIterator[str]:
    yield "once"
    raise SystemExit(4)


@io_route("/once")
async def once(exits_at_once: str) -> str:
    return exits_at_once


def test_system_exit_in_cleanup_does_not_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(exiting, exiting_stream, once, exits, exits_at_once), raise_errors=False) as url:
        assert httpx.get(f"{url}/exits").status_code == 500
        with httpx.stream("GET", f"{url}/exits-stream") as answer:
            next(answer.iter_bytes())
        # The disconnect meets the handler or the server: either closes the stream, and says so.
        wait_until(lambda: caplog.text.count("SystemExit: 3") > 1, "the stream is closed")
        assert httpx.get(f"{url}/once").text == "once"
    assert "the resource exits_at_once cannot be closed" in caplog.text


# Task groups


class Lost(Exception):
    pass


async def lose() -> None:
    raise Lost


@io_resource
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


@io_resource
async def anyio_group() -> AsyncIterator[Any]:
    async with create_task_group() as group:
        yield group


@io_route("/asyncio")
async def fails_in_group(group: asyncio.TaskGroup) -> str:
    group.create_task(lose())
    return "begun"


@io_route("/anyio")
async def fails_in_anyio_group(anyio_group: Any) -> str:
    anyio_group.start_soon(lose)
    return "begun"


@io_route("/cancel")
async def cancels_group(anyio_group: Any) -> str:
    anyio_group.cancel_scope.cancel()
    return "begun"


@io_route("/other")
async def other() -> str:
    return "other"


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [("asyncio", "group", "failed"), ("anyio", "anyio_group", "failed"), ("cancel", "anyio_group", "was cancelled")],
)
def test_a_task_group_that_fails_does_not_end_the_server(
    path: str, name: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(fails_in_group, fails_in_anyio_group, cancels_group, other, group, anyio_group)
    with serving(service, raise_errors=False) as url:
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.get(f"{url}/{path}").text == "begun"
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "the resource is lost")
        assert httpx.get(f"{url}/readyz").json()["lost_resources"] == [name]
        assert httpx.get(f"{url}/other").text == "other"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith(f"the resource {name} {words}, and is closed while the server runs")
    assert ("in lose" in errors[0]) == (words == "failed")


def test_a_task_group_waits_for_its_tasks_when_the_server_ends() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.1)
        done.append("work")

    @io_route("/")
    async def handler(group: asyncio.TaskGroup) -> None:
        group.create_task(work())

    with serving(Service(handler, group)) as url:
        assert httpx.get(url).status_code == 204
    assert done == ["work"]


def test_variables_of_a_resource_are_seen_by_requests() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    @io_resource
    async def sets() -> AsyncIterator[None]:
        token = tenant.set("acme")
        yield
        tenant.reset(token)

    @io_route("/")
    async def handler(sets: None) -> str:
        return tenant.get()

    with serving(Service(handler, sets)) as url:
        assert httpx.get(url).text == "acme"


@pytest.mark.parametrize("path", ["", "stream"])
def test_cleanup_runs_to_its_end_when_a_drain_cuts_the_request_off(path: str) -> None:
    log: list[str] = []
    begun = threading.Event()

    @io_resource
    async def transaction(request: Request) -> AsyncIterator[str]:
        try:
            yield "transaction"
        except BaseException:
            for _ in range(20):
                await asyncio.sleep(0)
            log.append("rollback")
            raise

    @io_route("/")
    async def handler(transaction: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    @io_route("/stream")
    async def stream(transaction: str) -> AsyncIterator[str]:
        yield "a"
        begun.set()
        await asyncio.Event().wait()

    with serving(Service(handler, stream, transaction), shutdown_timeout=0.5, raise_errors=False) as url:
        host, port = httpx.URL(url).host, httpx.URL(url).port
        client = socket.create_connection((host, port))
        client.sendall(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert begun.wait(20)
    client.close()
    assert log == ["rollback"]
