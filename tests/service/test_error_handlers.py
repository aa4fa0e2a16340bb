"""error_handlers.py: error handlers make responses, on the loop, in a worker and in a batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import resources_jobs
from tinysvc import ConfigurationError, HTTPError, Request, Response, Service, io_route
from tinysvc.core.errors import NoRoute, QueueFull
from tinysvc.service.error_handlers import checked
from tinysvc.testing import serving


def nowhere(request: Request, error: NoRoute) -> Response:
    return Response({"nothing at": request.path}, error.status)


def busy(request: Request, error: QueueFull) -> Response:
    return Response("busy", 429, headers={"retry-after": "7"})


def inner(request: Request, error: KeyError) -> Response:
    return Response("inner", 404)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    routes = [resources_jobs.raises, resources_jobs.raises_too, resources_jobs.raise_together]
    own = Service(resources_jobs.raises, prefix="/own", error_handlers={KeyError: inner})
    service = Service(*routes, own, error_handlers={**resources_jobs.HANDLERS, NoRoute: nowhere, QueueFull: busy})
    with serving(service, cpu_workers=1, raise_errors=False) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.mark.parametrize("where", ["io", "cpu", "all"])
@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("missing", 404, {"missing": "thing"}),
        ("key", 409, {"detail": "KeyError"}),
        ("teapot", 418, None),
        ("gone", 410, {"detail": "gone"}),
        ("disk", 500, None),
        ("other", 500, {"status": 500}),
        ("zero", 500, {"status": 500}),
    ],
)
def test_error_handler_makes_the_response(
    client: httpx.Client, where: str, name: str, status: int, says: dict[str, Any] | None
) -> None:
    answer = client.get(f"/{where}/{name}")
    assert answer.status_code == status
    if says is not None:
        assert says.items() <= answer.json().items()
    assert "secret" not in answer.text


def test_error_handler_with_500_is_logged(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/io/disk").text == "We are sorry."
    assert "secret path" in caplog.text
    assert "resources_jobs.py" in caplog.text
    caplog.clear()
    assert client.get("/io/key").status_code == 409
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_inner_service_s_error_handler_comes_first(client: httpx.Client) -> None:
    assert client.get("/own/io/key").text == "inner"
    assert client.get("/own/io/missing").status_code == 404


def test_no_route_has_error_handlers(client: httpx.Client) -> None:
    assert client.get("/nothing").json() == {"nothing at": "/nothing"}
    assert client.post("/io/key").status_code == 405
    assert client.options("/io/key").headers["allow"] == "GET, HEAD, OPTIONS"


def nowhere_inside(request: Request, error: NoRoute) -> Response:
    return Response("nowhere inside", error.status)


def test_no_route_below_a_prefix_goes_to_its_service() -> None:
    inside = Service(resources_jobs.raises, prefix="/inside", error_handlers={NoRoute: nowhere_inside})
    with serving(Service(inside, prefix="/v1", error_handlers={NoRoute: nowhere})) as url:
        for path, text in {
            "/v1/inside/nothing": "nowhere inside",
            "/v1/inside": "nowhere inside",
            "/v1/insider": '{"nothing at":"/v1/insider"}',
        }.items():
            assert (httpx.get(url + path).status_code, httpx.get(url + path).text) == (404, text)
        assert httpx.post(f"{url}/v1/inside/io/key").text == "nowhere inside"
        assert httpx.get(f"{url}/v2").json()["status"] == 404


def test_broken_error_handlers_get_500(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.get("/io/zero").status_code == 500
    assert "the error handler broken_handler returned 'no response'; return a Response or an HTTPError" in caplog.text


async def waits(request: Request, error: Exception) -> Response:
    return Response()


@pytest.mark.parametrize(
    ("handlers", "says"),
    [
        ({404: nowhere}, r"types of exceptions, as in \{KeyError: missing\}, not 404"),
        ({KeyboardInterrupt: nowhere}, "types of exceptions"),
        ({KeyError: waits}, "the error handler of KeyError must be a plain function.*may run in a worker"),
        ({KeyError: "text"}, "must be a plain function"),
        ({KeyError: lambda error: None}, r"must be a plain function, as in def missing\(request, error\)"),
        ([KeyError], r"error_handlers takes a mapping, as in \{KeyError: missing\}, not \[<class 'KeyError'>\]"),
    ],
)
def test_wrong_error_handlers_are_refused(handlers: dict[Any, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        checked(handlers)


def test_error_handler_that_a_worker_cannot_import_is_refused() -> None:
    service = Service(resources_jobs.raises_too, error_handlers={KeyError: lambda request, error: HTTPError(404)})
    with pytest.raises(ConfigurationError, match=r"is a lambda.*define it with def"), serving(service):
        pass


def test_error_handler_of_an_io_service_need_not_be_importable() -> None:
    @io_route("/")
    async def fails() -> None:
        raise KeyError("x")

    with serving(Service(fails, error_handlers={KeyError: lambda request, error: HTTPError(404, "lambda")})) as url:
        assert httpx.get(url).json()["detail"] == "lambda"
