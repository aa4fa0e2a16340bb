"""`await call(predict, features)`: a handler called as a function, wherever it runs.

    call ──> the deadline, id and trace of the calling code (call_context.py)
         ──> where the handler runs (call_targets.py)
               here         awaited, or a job of its pool (direct_calls.py); as a request where it needs one
                            (local_exchange.py)
               elsewhere    a request to a replica (exchanges.py, client/)
         ──> its result, the items of its stream, or an exception (call_failures.py)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar, overload

from .call_context import call_context

T = TypeVar("T")


class Call:
    """The type of `call`, which calls handlers as functions."""

    def __init__(self, forwarded: tuple[str, ...] = ()) -> None:
        self._forwarded = forwarded

    @overload
    def __call__(
        self, handler: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def __call__(self, handler: Callable[..., T], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, T]: ...

    def __call__(self, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Call a handler where it runs: see `call`."""
        from .call_targets import callee_of

        callee = callee_of(handler)
        target = callee.target
        return target.value(target.arguments(args, kwargs), call_context(callee.seconds), self._forwarded)

    @overload
    def stream(
        self, handler: Callable[..., AsyncIterator[T] | Iterator[T]], /, *args: Any, **kwargs: Any
    ) -> AsyncIterator[T]: ...

    @overload
    def stream(
        self, handler: Callable[..., Awaitable[AsyncIterator[T] | Iterator[T]]], /, *args: Any, **kwargs: Any
    ) -> AsyncIterator[T]: ...

    @overload
    def stream(self, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]: ...

    def stream(self, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Iterate over what a handler yields: `async for step in call.stream(explain, features)`.

        The handler is stopped when the iteration ends early. It runs only as fast as the items are taken. Items of text
        and bytes are pieces: their limits are not kept.

        Args:
            handler: A handler that streams.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            An iterator over the items.

        Raises:
            CallFailed: As for `call`; also in the middle of the stream, which is then not complete.
        """
        from .call_targets import callee_of

        callee = callee_of(handler)
        target = callee.target
        return target.items(target.arguments(args, kwargs), call_context(callee.seconds), self._forwarded)

    def forwarding(self, *headers: str) -> Call:
        """Return a `call` that passes headers of the current request on, such as `Authorization`.

        The trace (`traceparent`, `tracestate`) and `X-Request-Id` are always passed on. Credentials are not, unless
        they are named here.

        Args:
            *headers: Names of headers.

        Returns:
            An object that is used like `call`.
        """
        return Call((*self._forwarded, *(name.lower() for name in headers)))


call = Call()
"""Call a handler as a function: `await call(predict, features)`. It runs here if this service serves it, else elsewhere.

TODO
"""
