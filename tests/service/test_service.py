"""service.py: composition, pools and URLs of services."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any

import httpx
import pytest

import faulty
import service_jobs
from tinysvc import (
    ConfigurationError,
    Pool,
    Query,
    Request,
    Service,
    cpu_route,
    io_route,
)
from tinysvc.core.setting_values import SettingsError
from tinysvc.testing import serving


@io_route("/same")
async def one() -> None: ...


@io_route("/same")
async def two() -> None: ...


@io_route("/{a}")
async def no_parameter() -> None: ...


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


def test_decorators_return_the_function_untouched() -> None:
    assert faulty.predict(faulty.Features([1.0], "a"), 3.0) == {"score": 3.0, "name": "a"}
    assert faulty.cpu.__name__ == "cpu"


def test_services_under_prefixes() -> None:
    service = Service(Service(one, prefix="/a"), Service(two, prefix="/b"), prefix="/v1")
    assert [path for path, _ in service.all_routes()] == ["/v1/a/same", "/v1/b/same"]
    with serving(service) as url:
        assert httpx.get(f"{url}/v1/b/same").status_code == 204
        assert httpx.get(f"{url}/same").status_code == 404


# URLs of handlers


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
