"""The server's side of `call.wait(...)`: it makes the calls that cpu handlers ask for (worker_calls.py).

The call runs in a task, which the pool cancels when the job ends: at its deadline, by a disconnect, or with its worker.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..binding.outgoing import OutgoingRequest
from ..core.errors import ConfigurationError, TinysvcError
from ..core.tracebacks import author_traceback
from .call_context import HOPS, CallContext, calling
from .call_messages import CallAnswer, CallQuestion, failure_from

if TYPE_CHECKING:
    from ..pool.answers import AnswerFunction
    from ..pool.state import Job
    from .call_targets import CallTable

log = logging.getLogger("tinysvc.calls")


def answers_of(table: CallTable, pool: object, max_size: int, durable: AnswerFunction | None = None) -> AnswerFunction:
    """The function that makes the calls for the jobs of `pool`. A result may have `max_size` bytes.

    `durable` answers the questions of durable jobs about themselves.
    """
    make_call = partial(_answer, table, pool, max_size)

    async def answer(job: Job, question: Any, body: bytes) -> tuple[Any, bytes]:
        if type(question) is not CallQuestion and durable is not None:
            return await durable(job, question, body)
        return await make_call(question, body)

    return answer


async def _answer(
    table: CallTable, pool: object, max_size: int, question: CallQuestion, body: bytes
) -> tuple[CallAnswer, bytes]:
    try:
        return await _called(table, pool, max_size, question, body)
    except TinysvcError as error:
        failure = failure_from(error)
    except Exception as error:  # the job must not wait for ever
        log.error("the call of %s.%s failed\n%s", question.module, question.name, author_traceback(error))
        failure = failure_from(TinysvcError("the call failed in the server"))
    return CallAnswer(0, [], "", "", 0, failure), b""


async def _called(
    table: CallTable, pool: object, max_size: int, question: CallQuestion, body: bytes
) -> tuple[CallAnswer, bytes]:
    callee = table.callee_for_worker(_function(question))
    headers = dict(question.headers)
    context = CallContext(
        monotonic() + callee.seconds if question.deadline is None else question.deadline,
        headers.get("x-request-id", ""),
        None,
        int(headers[HOPS]),
        frozenset({pool}),
    )
    context.check_pool(callee.pool, f"{question.module}.{question.name}")
    calling.set(context)
    target = callee.prefix + question.target
    sent = OutgoingRequest(question.method, target, question.headers, body)
    incoming = await callee.exchange(sent, context)
    try:
        content = await incoming.body(max_size)
    finally:
        incoming.discard()
    head = incoming.headers.raw
    return CallAnswer(incoming.status, head, callee.service, incoming.replica, incoming.attempts), content


def _function(question: CallQuestion) -> Callable[..., Any]:
    """The handler that a worker names. It is looked up, never imported."""
    found: Any = sys.modules.get(question.module)
    for part in question.name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigurationError(f"{question.module}.{question.name} is no handler that the server knows")
    return found  # type: ignore[no-any-return]
