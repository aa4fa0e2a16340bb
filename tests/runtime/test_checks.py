"""checks.py: a cpu route becomes an endpoint, or is refused before anything is open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import resources_jobs
from tinysvc import Background, ConfigurationError, Service, WebSocket, cpu_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.checks import check, endpoint_of
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
