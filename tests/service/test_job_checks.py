"""job_checks.py: a job route is checked at its place, with its resources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from tinysvc import (
    ApiKey,
    Bearer,
    ConfigurationError,
    EventStream,
    Header,
    Service,
    cpu_resource,
    io_resource,
    job_route,
)
from tinysvc.service.job_checks import check_job_route
from tinysvc.service.plan import plans_of


@cpu_resource
def table() -> list[int]:
    return [1]


@io_resource
def caller(token: Annotated[str, Header("x-token")] = "") -> str:
    return token


@job_route("/good", every="0 3 * * *")
def good(table: list[int], days: int = 30, options: dict[str, int] | None = None) -> int:
    return days


@job_route("/guarded")
def guarded(caller: str, days: int) -> str:
    return caller


@job_route("/users/{user}/cleanups", every="0 3 * * *")
def of_user(user: str) -> None: ...


@job_route("/cleanups", every="0 3 * * *")
def with_caller(caller: str) -> None: ...


@job_route("/cleanups", every="0 3 * * *")
def with_days(days: int) -> None: ...


@job_route("/tokens")
def with_token(token: Annotated[str, Bearer()] = "") -> None: ...


@job_route("/tokens")
def with_key(key: Annotated[str, ApiKey("x-key")]) -> None: ...


@io_resource
def user(token: Annotated[str, Bearer()]) -> str:
    return token


@job_route("/tokens")
def with_user(user: str, token: Annotated[str, Bearer()]) -> None: ...


@job_route("/stream")
def stream() -> EventStream: ...  # type: ignore[empty-body]


@job_route("/stream")
def iterator() -> Iterator[int]: ...  # type: ignore[empty-body]


@job_route("/stream")
def async_iterator() -> AsyncIterator[int]: ...  # type: ignore[empty-body]


def check(*parts: Any) -> None:
    for plan in plans_of(Service(*parts)):
        check_job_route(plan)


def test_schedule_needs_no_client() -> None:
    check(good, guarded, table, caller)


def test_credential_of_a_handler_is_that_of_a_resource_which_guards_all_requests() -> None:
    check(with_user, user)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            [of_user],
            r"of_user .*every='0 3 \* \* \*' starts it without a request, but its path has the parameter {user}; "
            "leave it out of the path",
        ),
        (
            [with_caller, caller],
            "with_caller .*starts it without a request, but its resource caller is made from a request; guard the "
            "route with middleware, or",
        ),
        ([with_days], "with_days .*starts it without a request, but its parameter days has no default; give it one"),
        ([with_token], "with_token .*takes the credential token itself, so only a POST would ask for it, .*guards all"),
        ([with_key], "with_key .*takes the credential key itself"),
        ([stream], "stream .*returns a stream, but a durable job has one result, which is stored"),
        ([iterator], "iterator .*returns a stream, but a durable job has one result"),
        ([async_iterator], "async_iterator .*returns a stream, but a durable job has one result"),
    ],
)
def test_mistakes_are_refused(parts: list[Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        check(*parts)
