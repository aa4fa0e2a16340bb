"""checks.py: a cpu route becomes an endpoint, or is refused before anything is open."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import resources_jobs
from tinysvc import Background, ConfigurationError, Job, Service, WebSocket, cpu_route, io_route, job_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.checks import check, endpoint_of
from tinysvc.runtime.endpoint_parts import Durable
from tinysvc.service.plan import plans_of


def test_endpoint_lists_shared_resources_and_those_of_the_request() -> None:
    work = next(each for each in plans_of(Service(resources_jobs)) if each.route.function is resources_jobs.work)
    endpoint = endpoint_of(work, Settings())
    assert (list(endpoint.resources), endpoint.shared, endpoint.request_resources) == (
        ["base", "scale", "weights"],
        frozenset({"base"}),
        frozenset({"user"}),
    )


async def is_async() -> None: ...


def takes_socket(socket: WebSocket) -> None: ...


def takes_background(background: Background) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (is_async, "is async, but @cpu_route runs it in a worker"),
        (takes_socket, "takes a WebSocket"),
        (takes_background, "takes Background"),
        (lambda: None, "is a lambda"),
    ],
)
def test_function_that_cannot_run_in_a_worker_is_refused(function: Any, words: str) -> None:
    cpu_route("/")(function)
    with pytest.raises(ConfigurationError, match=words):
        check(next(plans_of(Service(function))))


def test_workers_that_are_threads_need_no_importable_function() -> None:
    cpu_route("/")(handler := lambda: None)
    plan = next(plans_of(Service(handler)))
    with ThreadPoolExecutor(1) as threads, pytest.raises(ConfigurationError, match="is a lambda"):
        endpoint_of(plan, Settings(pools={"default": threads}))
    assert endpoint_of(plan, Settings(cpu_workers=0)).function is handler


def takes_job(job: Job) -> None: ...


def returns_items() -> Iterator[int]:
    return iter([1])


def test_job_is_only_for_job_routes() -> None:
    cpu_route("/")(takes_job)
    with pytest.raises(ConfigurationError, match=r"takes a Job, but .* give it @job_route, not @cpu_route"):
        check(next(plans_of(Service(takes_job))))

    @io_route("/")
    async def io(job: Job) -> None: ...

    with pytest.raises(ConfigurationError, match="not @io_route"):
        check(next(plans_of(Service(io))))


def test_job_route_has_one_result_and_workers_that_can_be_killed() -> None:
    job_route("/", on_unreadable_save="restart")(one_result)
    plan = next(plans_of(Service(one_result)))
    assert endpoint_of(plan, Settings(max_result_size=5)).durable == Durable(5, discards_unreadable=True)
    with ThreadPoolExecutor(1) as threads, pytest.raises(ConfigurationError, match="cannot kill a job"):
        endpoint_of(plan, Settings(pools={"default": threads}))
    job_route("/")(returns_items)
    with pytest.raises(ConfigurationError, match="returns a stream, but a durable job has one result"):
        check(next(plans_of(Service(returns_items))))
    job_route("/")(is_also_async)
    with pytest.raises(ConfigurationError, match="is async, but @job_route runs it in a worker"):
        check(next(plans_of(Service(is_also_async))))


async def is_also_async() -> None: ...


def one_result(job: Job) -> int:
    return job.attempt
