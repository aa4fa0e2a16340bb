"""`call.wait(handler, ...)` in a `def` handler of an io route: its thread waits while the event loop makes the call."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from ..core.budget import current_deadline
from ..core.errors import ConfigurationError
from .call_context import call_context


def wait_in_thread(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], forwarded: tuple[str, ...]
) -> Any:
    """See `Call.wait`. ConfigurationError where the code is on the event loop, or in a thread of its own."""
    from anyio.from_thread import run  # only services with `def` handlers pay for the import

    context, deadline = call_context(0.0), current_deadline()  # the request is known in this thread only

    async def called() -> Any:
        from .call_targets import callee_of

        callee = callee_of(function)
        end = monotonic() + callee.seconds if deadline is None else deadline
        own = context._replace(deadline=end)
        own.check_pool(callee.pool, function.__qualname__)
        return await callee.target.value(callee.target.arguments(args, kwargs), own, forwarded)

    try:
        return run(called)
    except RuntimeError as error:
        if "worker thread" not in str(error):
            raise
    raise ConfigurationError.at(
        function,
        "cannot be called by call.wait(...) here, which is for cpu handlers and for io handlers that are a plain def; "
        "write `await call(...)`",
    )
