"""The promises of our annotations. Nothing here runs: mypy and pyright check it.

Each ignored error must occur: both type checkers report an unused `type: ignore`.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedCoroutine=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, assert_type

from tinysvc import (
    Batch,
    Bearer,
    Event,
    HTTPError,
    Job,
    Pool,
    Request,
    Response,
    Retry,
    Service,
    WebSocket,
    budget,
    call,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
    job_route,
    seconds_left,
    submit,
)
from tinysvc.core.settings import Settings
from tinysvc.service.job_document import JobDocument
from tinysvc.testing import serving


@io_route("/hello/{name}", timeout=1.0, limit=3, tags=["a"], responses={404: "None.", 201: int})
async def hello(name: str) -> int:
    return len(name)


@cpu_route("/square/{x}", timeout=1.0, batch=None)
def square(x: int) -> int:
    return x * x


@cpu_route("/events")
def events() -> Iterator[Event]:
    yield Event("one")


@job_route("/trainings", retry=Retry(attempts=2), keep="7d", every="0 3 * * *", tags=["a"])
def train(epochs: int, job: Job) -> float:
    job.progress(0.5, loss=1)
    return 0.5


@io_resource
async def user(token: Annotated[str, Bearer()]) -> str:
    return token


@cpu_resource(shared=True)
def model() -> float:
    return 1.0


async def a_decorated_function_stays_what_it_was() -> None:
    assert_type(await hello("Ada"), int)
    assert_type(square(2), int)
    assert_type(train(2, Job()), float)
    assert_type(events(), Iterator[Event])
    assert_type(await user("t"), str)
    assert_type(model(), float)
    await hello(1)  # type: ignore[arg-type]
    square("two")  # type: ignore[arg-type]
    square()  # type: ignore[call-arg]


async def so_does_one_that_is_called() -> None:
    assert_type(await call(square, 2), int)
    assert_type(await call(hello, "Ada"), int)
    assert_type(await call.forwarding("authorization")(square, 2), int)
    assert_type(call.wait(hello, "Ada"), int)
    assert_type(call.wait(square, 2), int)
    async for event in call.stream(events):
        assert_type(event, Event)
    async with budget(0.5):
        assert_type(seconds_left(), float | None)


async def a_submitted_job_has_the_type_of_its_result() -> None:
    accepted = await submit(train, 2, after=60, priority=5, key="user-7")
    assert_type(await accepted.result(timeout=5), float)
    assert_type(await accepted.status(), JobDocument)
    assert_type(await call(train, 2), float)


def options_have_types() -> None:
    job_route("/x", retry=3)  # type: ignore[arg-type]
    job_route("/x", methods=["GET"])  # type: ignore[call-arg]
    io_route("/x", methods=["GET", "POST"])
    io_route("/x", timeout="1")  # type: ignore[arg-type]
    io_route("/x", batch=Batch())  # type: ignore[call-arg]
    cpu_route("/x", batch=Batch(8, 0.1), pool="training")
    cpu_route("/x", pool=Pool())  # type: ignore[arg-type]
    Settings(port="80")  # type: ignore[arg-type]
    Settings(prot=80)  # type: ignore[call-arg]


async def around(request: Request, call_next: Any) -> Response:
    assert_type(request.headers.get("accept"), str | None)
    assert_type(request.path_params, dict[str, str] | None)
    return Response(b"", 204)


def missing(request: Request, error: KeyError) -> HTTPError:
    return HTTPError(404)


def services() -> None:
    service = Service(hello, Service(square, prefix="/x"), middleware=[around], error_handlers={KeyError: missing})
    assert_type(service.override(user="ada"), Service)
    assert_type(service.url_for(hello, name="Ada"), str)
    with serving(service) as url:
        assert_type(url, str)
    Service(middleware=[missing])  # type: ignore[list-item]


async def sockets(socket: WebSocket) -> None:
    async for message in socket:
        assert_type(message, str | bytes)
