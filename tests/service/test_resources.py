"""resources.py: wrong resources are refused at start-up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any

import httpx
import pytest

from tinysvc import ConfigurationError, Header, Query, Service, cpu_resource, cpu_route, io_resource, io_route
from tinysvc.runtime.open_resources import ResourceFailed
from tinysvc.service.resources import open_resource
from tinysvc.testing import serving


def start_up_error(*parts: Any) -> str:
    with pytest.raises(ConfigurationError) as raised, serving(Service(*parts)):
        pass
    return str(raised.value)


def resource(name: str, function: Any, kind: Any = io_resource) -> Any:
    function.__name__ = name
    return kind(function)


@io_route("/")
async def asks(a) -> None: ...  # type: ignore[no-untyped-def]


def test_cycle_of_resources_is_refused() -> None:
    async def one(b): ...  # type: ignore[no-untyped-def]
    async def two(c): ...  # type: ignore[no-untyped-def]
    async def three(b): ...  # type: ignore[no-untyped-def]

    found = start_up_error(asks, resource("a", one), resource("b", two), resource("c", three))
    assert "these resources need each other: b -> c -> b; remove one of these parameters" in found
    assert "test_resources.py" in found


def test_unknown_parameter_of_a_resource_is_refused() -> None:
    async def one(limit: int = 3) -> None: ...

    assert "one" in (found := start_up_error(asks, resource("a", one)))
    assert "nothing fills its parameter limit: int = 3: there is no io_resource of this name" in found


def test_cpu_resource_takes_cpu_resources_only() -> None:
    @cpu_resource
    def a(request: Any) -> None: ...

    @cpu_route("/")
    def handler(a: Any) -> None: ...

    assert "takes other cpu_resources and artifacts only" in start_up_error(handler, a)


def test_io_resource_takes_no_cpu_resource() -> None:
    @cpu_resource
    def b() -> None: ...

    @io_resource
    async def a(b: Any) -> None: ...

    assert "b: Any: that is a cpu_resource, opened in the workers" in start_up_error(asks, a, b)


def test_shared_resource_takes_shared_resources_only() -> None:
    @cpu_resource
    def b() -> None: ...

    @cpu_resource(shared=True)
    def a(b: Any) -> None: ...

    @cpu_route("/")
    def handler(a: Any) -> None: ...

    assert "it takes b, which is opened in each worker; make b a @cpu_resource(shared=True), too" in start_up_error(
        handler, a, b
    )


def test_unannotated_parameter_does_not_come_from_the_request() -> None:
    """Else a default would be the client's to choose."""

    async def one(dsn: str = "sqlite://") -> None: ...

    assert "nothing fills its parameter dsn" in start_up_error(asks, resource("a", one))


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


def test_override_of_an_unknown_resource_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"there is no resource 'greting'; did you mean greeting\?"):
        Service(greet, greeting, name).override(greting=1)


def test_override_that_cannot_be_pickled_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with (
        pytest.raises(
            ConfigurationError,
            match=r"override of a cpu_resource, .*lock.*worker: .*give a function",
        ),
        serving(Service(score, name, model).override(model=threading.Lock(), name="x")),
    ):
        pass


def test_header_of_a_resource_is_named_like_its_parameter() -> None:
    @io_resource
    async def a(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    @io_route("/tenant")
    async def tenant(a: str) -> str:
        return a

    with serving(Service(tenant, a)) as url:
        assert httpx.get(f"{url}/tenant", headers={"x-tenant": "t"}).text == "t"
        assert httpx.get(f"{url}/tenant").json()["errors"] == [{"place": "header.x-tenant", "detail": "is missing"}]


def test_generator_ends_when_its_stack_closes() -> None:
    log = []

    def plain() -> str:
        return "plain"

    def generator() -> Iterator[str]:
        yield "generator"
        log.append("closed")

    with ExitStack() as stack:
        assert [open_resource(stack, plain, {}), open_resource(stack, generator, {})] == ["plain", "generator"]
        assert not log
    assert log == ["closed"]
