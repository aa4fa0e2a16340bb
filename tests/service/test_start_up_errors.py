"""Mistakes of an author are refused at start-up; the error names the function, its place and the remedy."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tinysvc import (
    ConfigurationError,
    Service,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
    job_route,
)
from tinysvc.testing import serving


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


@job_route("/")
def without_type(job) -> None: ...  # type: ignore[no-untyped-def]


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


@job_route("/trainings")
def train() -> None: ...


@job_route("/trainings")
async def asynchronous_job() -> None: ...


@io_route("/trainings")
async def overview() -> None: ...


@io_route("/trainings/{name}")
async def details(name: str) -> None: ...


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([asynchronous], "asynchronous .*test_start_up_errors.py:.*make it a plain def"),
        ([no_parameter], r"no_parameter .*the path has \{a\}.*add it or rename one"),
        ([unannotated], "unannotated .*nothing fills the parameter what.*annotate it"),
        ([without_type], "without_type .*nothing fills the parameter job: .*annotate it, as in job: Job, or"),
        ([undecodable], "undecodable .*cannot read a value of type .*Client.*use a dataclass"),
        ([two_bodies], "two_bodies .*both a and b take the body.*one dataclass"),
        ([star], r"star .*the parameter \*args: int cannot be filled by its name"),
        ([wrong_side, on_cpu], "wrong_side .*on_cpu comes from @cpu_resource.*use @io_resource"),
        ([wrong_side_too, on_io], "wrong_side_too .*on_io comes from @io_resource.*worker process"),
        (
            [one, two],
            r"two .*GET /same already has a handler, .*one \(.*_errors.py:\d+\); change path or methods",
        ),
        ([wrong_side_typed, on_cpu], "wrong_side_typed .*on_cpu comes from @cpu_resource.*or rename the parameter"),
        ([wrong_side_too_typed, on_io], "wrong_side_too_typed .*on_io comes from @io_resource.*use @cpu_resource"),
        ([wrong_side_typed], r"on_cpu is a resource of its module.*name it too.*Service\(wrong_side_typed, on_cpu\)"),
        ([cpu_route("/")(lambda: None)], "lambda.*define it with def at the module's top level"),
        ([asynchronous_job], "asynchronous_job .*is async, but @job_route runs it in a worker"),
        ([train, overview], r"overview .*GET /trainings already has a handler, .*train \("),
        ([details, train], r"train .*GET /trainings/\{job_id\} already has a handler, .*details \("),
        ([job_route("/")(lambda: None)], "lambda.*define it with def at the module's top level"),
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
