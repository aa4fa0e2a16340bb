"""Blocking functions in threads: `def` handlers, `next` of plain iterators, opening and closing of resources."""

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
    """Run a blocking function in a thread.

    *Cancellation.* On cancellation, wait for a thread that has started: its resources must stay open. A thread that has
    not started never starts. While the server drains, do not wait: the thread may never return.

    Args:
        function: The function. It sees the context variables of the calling task.
        always: Start even after a cancellation, in a thread outside the limit of the handlers: for closing resources.
        limiter: An `anyio.CapacityLimiter` in place of the one that all handlers share.

    Returns:
        The result of `function`.

    Raises:
        BaseException: The exception of `function`.
    """
    from anyio import CancelScope, CapacityLimiter  # only services with `def` handlers pay for the import
    from anyio.to_thread import run_sync

    claim = Lock()  # taken by the thread or by the cancellation, whichever comes first
    limiter = CapacityLimiter(1) if always else limiter
    threads = ThreadContext.of(asyncio.current_task())
    work = asyncio.ensure_future(
        run_sync(partial(_outcome, threads.within(function), claim, request_context.current_owner()), limiter=limiter)
    )
    try:
        result, failure = await asyncio.shield(work)
    except asyncio.CancelledError as error:
        if not always and claim.acquire(blocking=False):
            work.cancel()
        elif not always and DRAINED in error.args:
            exit_guard.abandoned_thread = True  # the exit does not wait for it either
        else:
            with CancelScope(shield=True):  # an anyio scope repeats its cancellation
                await asyncio.wait([work])
            threads.copy_back()
        raise
    threads.copy_back()
    if failure is None:
        return result
    try:
        raise failure
    finally:
        del failure, work  # break the reference cycle with this frame


def _outcome(
    function: Callable[[], Any], claim: Lock, connection: request_context.RequestOwner | None
) -> tuple[Any, BaseException | None]:
    """The result or the exception of `function`, as values: a SystemExit raised in a task would end the event loop."""
    if not claim.acquire(blocking=False):
        return None, None  # cancelled: the result is discarded
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
