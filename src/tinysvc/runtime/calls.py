"""`await call(predict, features)`: a handler called as a function, wherever it runs.

call ──> the deadline, id and trace of the calling code (call_context.py)
     ──> where the handler runs (call_targets.py)
           here         awaited, or a job of its pool (direct_calls.py); as a request where it needs one
                        (local_exchange.py)
           elsewhere    a request to a replica (exchanges.py, client/)
     ──> its result, the items of its stream, or an exception (call_failures.py)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .call_context import LONGEST, call_context

if TYPE_CHECKING:
    from .call_targets import Callee

T = TypeVar("T")


class Call:
    """The type of `call`, which calls handlers as functions.

    Example:
        ```python
        from collections.abc import AsyncIterator

        from tinysvc import call, io_route

        @io_route("/steps")
        async def steps(to: int) -> AsyncIterator[int]:
            for n in range(to):
                yield n

        @io_route("/sum")
        async def total(to: int) -> int:
            return sum([n async for n in call.stream(steps, to)])
        ```
    """

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
        callee = _callee_of(handler)
        target, context = callee.target, call_context(callee.seconds)
        if context.pools:
            context.check_pool(callee.pool, handler.__qualname__)
        return target.value(target.arguments(args, kwargs), context, self._forwarded)

    @overload
    def stream(
        self, handler: Callable[..., AsyncIterator[T] | Iterator[T]], /, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def stream(
        self, handler: Callable[..., Awaitable[AsyncIterator[T] | Iterator[T]]], /, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def stream(self, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]: ...

    def stream(self, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """Iterate over what a handler yields: `async for step in call.stream(explain, features)`.

        The handler is stopped when the iteration ends early. It runs only as fast as the items are taken. Items of text
        and bytes are pieces: their limits are not kept. If the calling code has no deadline, only the beginning of the
        stream has one.

        Args:
            handler: A handler that streams.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Yields:
            The items.

        Raises:
            CallFailed: As for `call`; also in the middle of the stream, which is then not complete.
        """
        callee = _callee_of(handler)
        target, context = callee.target, call_context(LONGEST)  # a stream may go on for long
        if context.pools:
            context.check_pool(callee.pool, handler.__qualname__)
        return target.items(target.arguments(args, kwargs), context, self._forwarded, callee.seconds)

    @overload
    def wait(self, handler: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, **kwargs: Any) -> T: ...

    @overload
    def wait(self, handler: Callable[..., T], /, *args: Any, **kwargs: Any) -> T: ...

    def wait(self, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler from a cpu handler, or a plain `def` io handler, and wait for its result.

        These have no event loop: the server makes the call. When the job is stopped, the call is cancelled. A call that
        needs a worker of the pool in which its caller runs is refused: all workers could wait for each other.

        Args:
            handler: Any handler that returns one value.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The result of the handler.

        Raises:
            HTTPError: The callee has responded with a 4xx.
            CallFailed: There is no result, as for `call`. `CallRefused`: the call needs the pool of its caller.
            ConfigurationError: It is called on the event loop, or the handler is not known to the server.
        """
        from .worker_calls import wait_for_call  # a service without such calls needs none of it

        return wait_for_call(handler, args, kwargs, self._forwarded)

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


def _find_first(handler: Callable[..., Any]) -> Callee:
    """Load the event loop's part of calls at the first call: a worker imports this file, too, and needs none of it."""
    global _callee_of
    from .call_targets import callee_of

    _callee_of = callee_of
    return callee_of(handler)


_callee_of = _find_first

call = Call()
"""Call a handler as a function, wherever it runs: `await call(predict, features)`.

It runs here if this service serves it: an io handler on the event loop, a cpu handler in its pool. If the setting
`services` names the handler's module, the call is a request to one of its replicas instead: arguments and result are
the same. Resources of the handler are filled in where it runs.

The call takes at most the time that the calling code has left, and the callee is told. Cancelling the call stops the
callee. The trace and `X-Request-Id` of the current request are passed on.

`call.stream(...)` iterates over what a handler yields. `call.wait(...)` is for handlers that are no `async def`.
`call.forwarding(...)` passes credentials on.

Raises:
    HTTPError: The callee has responded with a 4xx. It has the same status, detail and further members.
    CallFailed: There is no result: `CallUnavailable`, `CallTimeout` and `CallRefused` say more.
    TypeError: The arguments do not fit the handler.
    ConfigurationError: The handler is not served here, and `services` does not name its module.

Example:
    ```python
    from tinysvc import call, cpu_route, io_route

    @cpu_route("/square")
    def square(n: int) -> int:
        return n * n

    @io_route("/squares", timeout=1.0)
    async def squares() -> list[int]:
        return [await call(square, n) for n in (1, 2, 3)]
    ```
"""
