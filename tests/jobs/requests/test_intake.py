"""intake.py: from a request to the durable job that is stored."""

from __future__ import annotations

from typing import Annotated

import pytest

from tinysvc import (
    ConfigurationError,
    Cookie,
    Header,
    Request,
    Retry,
    Service,
    cpu_resource,
    cpu_route,
    io_resource,
    job_route,
)
from tinysvc.core.errors import BindingError
from tinysvc.core.headers import Headers
from tinysvc.core.settings import Settings
from tinysvc.jobs.requests.intake import BIG, Intake
from tinysvc.jobs.stored_request import decode_request
from tinysvc.service.plan import Plan, plans_of


@cpu_resource
def table() -> list[int]:
    return []


@job_route("/sums/{name}", retry=Retry(attempts=7), keep=5)
def add(name: str, numbers: list[int], table: list[int]) -> int:
    return sum(numbers)


@io_resource
def session(sid: Annotated[str, Cookie()] = "") -> str:
    return sid


@io_resource
def team(x_team: Annotated[str, Header()]) -> str:
    return x_team


@job_route("/own")
def own(session: str, team: str, x_mode: Annotated[str, Header()]) -> None: ...


@job_route("/ticks")
def tick() -> None: ...


@cpu_route("/plain")
def plain() -> None: ...


def plan_of(*parts: object) -> Plan:
    return next(plans_of(Service(*parts)))


@pytest.mark.asyncio
@pytest.mark.parametrize("numbers", [b"[1,2]", b"[" + b"1," * BIG + b"2]"])
async def test_job_has_the_options_of_its_route(numbers: bytes) -> None:
    intake = Intake(plan_of(add, table), Settings())
    new = await intake.new_job(Request("POST", "/sums/a%20b", body=numbers, path_params={"name": "a b"}, id="seven"))
    assert (new.route, new.path) == ("/sums/{name}", "/sums/a%20b")
    assert (new.keep, new.max_attempts, new.due, new.request_id) == (5, 7, None, "seven")
    assert new.body == numbers
    assert decode_request(new.request).path_params == {"name": "a b"}


@pytest.mark.asyncio
@pytest.mark.parametrize("numbers", [b'["one"]', b"[" + b"1," * BIG + b'"two"]'])
async def test_request_that_does_not_bind_is_refused(numbers: bytes) -> None:
    with pytest.raises(BindingError):
        await Intake(plan_of(add, table), Settings()).new_job(
            Request("POST", "/sums/a", body=numbers, path_params={"name": "a"})
        )


@pytest.mark.asyncio
async def test_key_belongs_to_the_headers_and_cookies_that_the_resources_read() -> None:
    intake = Intake(plan_of(own, session, team), Settings())

    async def submitted(cookie: str, team: str, mode: str) -> tuple[str, bytes]:
        sent = {"idempotency-key": "k", "cookie": cookie, "x-team": team, "x-mode": mode}
        headers = Headers([(name.encode(), value.encode()) for name, value in sent.items()])
        new = await intake.new_job(Request("POST", "/own", headers=headers))
        return new.key, new.digest

    first = await submitted("sid=1", "a", "fast")
    assert await submitted("other=9; sid=1", "a", "fast") == first
    others = [await submitted("sid=2", "a", "fast"), await submitted("sid=1", "b", "fast")]
    assert len({first[0], *(key for key, _ in others)}) == 3
    key, digest = await submitted("sid=1", "a", "slow")
    assert (key, digest == first[1]) == (first[0], False)


def test_scheduled_job_is_that_of_an_empty_request() -> None:
    new = Intake(plan_of(tick), Settings()).scheduled_job("tick-1")
    assert (new.route, new.path, new.body, new.request_id) == ("/ticks", "/ticks", b"", "tick-1")
    assert decode_request(new.request).method == "POST"


def test_route_that_is_no_job_route_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no @job_route"):
        Intake(plan_of(plain), Settings())


@pytest.mark.asyncio
async def test_body_that_nothing_reads_is_not_stored() -> None:
    new = await Intake(plan_of(tick), Settings()).new_job(Request("POST", "/ticks", body=b"ignored"))
    assert new.body == b""
