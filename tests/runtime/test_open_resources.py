"""open_resources.py: io resources are opened around a request or for the whole server, in the order of need."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

import resources_jobs
from system import wait_until
from tinysvc import Service, io_resource, io_route
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


def test_resource_takes_a_part_of_the_request(client: httpx.Client) -> None:
    assert client.get("/me", headers=TOKEN).json() == {"name": "ada", "database": "main"}
    assert client.get("/me", headers={"authorization": "bEARER  secret"}).status_code == 200


@pytest.mark.parametrize("path", ["/me", "/work", "/batch?n=1"])
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", "Basic secret", "secret"])
def test_unknown_client_gets_401(client: httpx.Client, path: str, header: str | None) -> None:
    answer = client.get(path, headers={"authorization": header} if header else {})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "detail" in answer.json()


def test_missing_key_gets_401(client: httpx.Client) -> None:
    assert client.get("/key", headers={"x-key": "k", "user-agent": "a"}).text == "a:k"
    answer = client.get("/key")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'ApiKey header="x-key"')


def test_each_is_opened_once_a_request_and_closed_in_reverse(client: httpx.Client, record: Path) -> None:
    assert client.get("/twice", headers=TOKEN).json() == ["ada", "main/ada"]
    assert lines(record) == ["user", "begin", "commit"]


def test_resources_get_the_error_of_the_handler(client: httpx.Client, record: Path) -> None:
    assert client.get("/fails", headers=TOKEN).status_code == 409
    assert lines(record) == ["user", "begin", "rollback HTTPError"]


def test_resource_cannot_swallow_an_error(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/swallowed").status_code == 500
    assert "not to be swallowed" in caplog.text


def test_resources_stay_open_until_a_stream_has_ended(client: httpx.Client, record: Path) -> None:
    with client.stream("GET", "/stream", headers=TOKEN) as answer:
        assert "".join(answer.iter_text()) == "one main/ada"
    assert lines(record) == ["user", "begin", "commit"]


def test_failed_stream_rolls_back(client: httpx.Client, record: Path) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/broken", headers=TOKEN)
    assert lines(record) == ["user", "begin", "rollback LookupError"]


def test_disconnect_in_a_stream_rolls_back(client: httpx.Client, record: Path) -> None:
    with client.stream("GET", "/endless", headers=TOKEN) as answer:
        pieces = answer.iter_text()  # kept: httpx closes the stream with it
        assert next(pieces) == "data: first\n\n"
        assert lines(record) == ["user", "begin"]
    wait_until(lambda: lines(record)[2:] == ["rollback CancelledError"], "the resource is closed")


def test_def_resource_runs_in_a_thread(client: httpx.Client, record: Path) -> None:
    assert client.post("/threaded", content=b"x" * 3).text == "POST /threaded xxx"
    assert lines(record) == ["thread begins", "thread ends"]


def test_websocket_has_resources(client: httpx.Client, url: str, record: Path) -> None:
    with connect(url.replace("http", "ws") + "/socket", additional_headers=TOKEN) as socket:
        assert socket.recv(timeout=20) == "main/ada"
    wait_until(lambda: lines(record) == ["user", "begin", "commit"], "the resource is closed")
    with pytest.raises(InvalidStatus, match="401"):
        connect(url.replace("http", "ws") + "/socket").close()


def test_websocket_that_fails_closes_its_resources(url: str, record: Path) -> None:
    record.write_text("")
    with connect(url.replace("http", "ws") + "/socket-fails", additional_headers=TOKEN) as socket:
        assert socket.recv(timeout=20) == "main/ada"
        with pytest.raises(ConnectionClosedError, match="1011"):
            socket.recv(timeout=20)
    wait_until(lambda: lines(record) == ["user", "begin", "rollback LookupError"], "the resource is closed")


def test_worker_gets_the_resources_of_the_request(client: httpx.Client) -> None:
    assert client.get("/work", headers=TOKEN).json() == [[10, 20], "ada", "main"]


def test_batch_gets_the_resources_of_each_request(client: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda n: client.get(f"/batch?n={n}", headers=TOKEN).text, range(4))
        assert list(answers) == [f"{n} ada 10" for n in range(4)]


def test_cached_response_needs_the_same_resources(client: httpx.Client, record: Path) -> None:
    def ask(key: str, **headers: str) -> httpx.Response:
        return client.get("/cached", headers={"x-key": key, "user-agent": "a", **headers})

    assert ask("1", **TOKEN).text == ask("1", **TOKEN).text == "ada a:1"
    assert ask("2", **TOKEN).text == "ada a:2"
    assert ask("1").status_code == 401
    assert lines(record).count("computed") == 2


def test_resource_that_cannot_be_pickled_is_named(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/unpicklable").status_code == 500
    assert "the resources lock of a request cannot be sent to a worker" in caplog.text


WRONG = "size=x&n=y&limit=z"
PLACES = ["query.limit", "query.size", "query.n"]


@pytest.mark.parametrize("path", ["/sized", "/cpu-sized", "/batch-sized", "/cached-sized", "/socket-sized"])
def test_wrong_parameters_of_handler_and_resources_are_one_response(
    client: httpx.Client, record: Path, path: str
) -> None:
    answer = client.get(f"{path}?{WRONG}", headers=TOKEN)
    assert (answer.status_code, [error["place"] for error in answer.json()["errors"]]) == (422, PLACES)
    assert client.get(f"{path}?size=1&limit=2", headers=TOKEN).json()["errors"] == [
        {"place": "query.n", "detail": "is missing"}
    ]
    assert lines(record) == []  # nothing was opened


@pytest.mark.parametrize("path", ["/sized", "/cpu-sized", "/batch-sized", "/cached-sized", "/socket-sized"])
def test_missing_token_precedes_other_faults(client: httpx.Client, record: Path, path: str) -> None:
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


def test_open_resources_are_closed_when_a_later_one_fails() -> None:
    closed = []

    @io_resource
    async def b() -> AsyncIterator[int]:
        yield 1
        closed.append("b")

    @io_resource
    async def a(b: int) -> int:
        raise OSError("no database")

    @io_route("/")
    async def handler(a: int) -> None: ...

    with (
        pytest.raises(ResourceFailed, match=r"the resource a cannot be opened:\n(.*\n)+.*no database"),
        serving(Service(handler, a, b)),
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
