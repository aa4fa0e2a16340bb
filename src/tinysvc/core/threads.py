"""Blocking functions in threads: `def` handlers, the `next` of plain iterators, what opens and closes resources."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Lock, get_ident
from typing import Any

from . import forks, request_context
from .context_variables import ThreadContext
from .shutdown import DRAINED, exit_guard


async def in_thread(function: Callable[[], Any], *, always: bool = False, limiter: Any = None) -> Any:
    """What `function` returns. Who is cancelled waits for a thread that has begun: what it uses must stay open so long.

    One that has not begun, never does; but with `always` it does all the same, in a thread beside those that handlers
    wait for: what closes a resource. `limiter` is anyio's, in the place of the one of all handlers.
    """
    from anyio import CancelScope, CapacityLimiter  # only services with `def` handlers pay for the import
    from anyio.to_thread import run_sync

    turn = Lock()  # whoever has it came first: the thread or the cancellation
    limiter = CapacityLimiter(1) if always else limiter
    threads = ThreadContext.of(asyncio.current_task())
    work = asyncio.ensure_future(
        run_sync(partial(_outcome, threads.within(function), turn, request_context.current_owner()), limiter=limiter)
    )
    try:
        result, failure = await asyncio.shield(work)
    except asyncio.CancelledError as error:
        if not always and turn.acquire(blocking=False):
            work.cancel()
        elif not always and DRAINED in error.args:
            exit_guard.abandoned_thread = True  # it may never return
        else:
            with CancelScope(shield=True):  # a scope of anyio's cancels again and again
                await asyncio.wait([work])
            threads.copy_back()
        raise
    threads.copy_back()
    if failure is None:
        return result
    try:
        raise failure
    finally:
        del failure, work  # which lead to this frame


def _outcome(
    function: Callable[[], Any], turn: Lock, connection: request_context.RequestOwner | None
) -> tuple[Any, BaseException | None]:
    """What it returns, or raises: the SystemExit of a task would end the loop."""
    if not turn.acquire(blocking=False):
        return None, None  # to nobody
    if connection:
        request_context.owner_by_thread[get_ident()] = connection
    try:
        result = function()
    except BaseException as error:
        if forks.in_child:
            forks.end_child(error)
        return None, error
    finally:
        request_context.owner_by_thread.pop(get_ident(), None)
    if forks.in_child:
        forks.end_child()
    return result, None
