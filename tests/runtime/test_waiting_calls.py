"""waiting_calls.py: a worker may name any function; the server calls only handlers that it knows."""

from __future__ import annotations

import pytest

import called_app as app
from http_ends import on_loop
from tinysvc import ConfigurationError, Service
from tinysvc.core.settings import Settings
from tinysvc.pool.state import Job
from tinysvc.runtime.call_messages import CallAnswer, CallQuestion
from tinysvc.runtime.call_targets import CallTable
from tinysvc.runtime.running_service import at_work
from tinysvc.runtime.waiting_calls import answers_of
from tinysvc.service.plan import plans_of

HEADERS = [("x-call-hops", "1")]


async def answer(question: CallQuestion) -> CallAnswer:
    async with at_work(Service(app.moved, app.factor, app.maybe, prefix="/p"), Settings()) as running:
        found: CallAnswer
        plans = list(plans_of(running.service))
        table = CallTable(running, None, plans)
        for plan in plans:
            table.mount(plan.route.function, {"factor": 3})
        found, _ = await answers_of(table, object(), 1000)(Job(None), question, b"")
        return found


@on_loop
async def test_known_handler_is_called_below_its_prefix() -> None:
    found = await answer(CallQuestion("called_app", "maybe", "GET", "/maybe/2", HEADERS, None))
    assert (found.failure, found.status, found.service) == (None, 200, "called_app")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("called_app", "raised"),
        ("called_app", "none.at.all"),
        ("nowhere", "f"),
        ("called_app", "SLOW"),
    ],
)
@on_loop
async def test_any_other_function_is_refused(module: str, name: str) -> None:
    found = await answer(CallQuestion(module, name, "GET", "/", HEADERS, None))
    assert found.failure is not None
    assert isinstance(found.failure.error(), ConfigurationError)


@on_loop
async def test_question_that_the_server_cannot_use_is_answered_all_the_same() -> None:
    found = await answer(CallQuestion("called_app", "maybe", "GET", "/maybe/2", [("x-call-hops", "x")], None))
    assert found.failure is not None
