"""Budgets: how much of its caller's time the running code has left, and the headers in which that travels.

A deadline is a point in time (`time.monotonic`, the same clock in the server and in its workers). A budget is the time
until then. It travels as a duration, because the clocks of two machines differ:

    Request-Timeout: 480ms      Connect-Timeout-Ms: 480 (read only, from clients of the Connect protocol)

A route's `timeout`, a `budget(...)` block and the client's header can each only shorten the time that is left. A
request without any of them costs nothing here.
"""

from __future__ import annotations

import re
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from .call_errors import BudgetExhausted
from .errors import ProtocolError

if TYPE_CHECKING:
    from types import TracebackType

REQUEST_TIMEOUT, CONNECT_TIMEOUT_MS = b"request-timeout", b"connect-timeout-ms"
TIMEOUT_FIELDS = frozenset({REQUEST_TIMEOUT, CONNECT_TIMEOUT_MS})

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|ms|s|m|h)", re.ASCII)
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
"""The Connect protocol: at most 10 digits."""


class Deadline(Struct, gc=False):
    """The deadline of the code that runs now. A route's timeout ends with its handler: a stream may take longer."""

    at: float | None
    request: Any = None
    """In a worker: the one that its job is for."""


current: ContextVar[Deadline | None] = ContextVar("tinysvc_deadline", default=None)
"""The innermost deadline. It is set only where there is one, and it is never later than the one around it."""


def current_deadline() -> float | None:
    """The deadline of the calling code, in seconds of `time.monotonic`; None if it has none."""
    found = current.get()
    return None if found is None else found.at


def current_request() -> Any:
    """The request that the job of this worker is for; None elsewhere."""
    found = current.get()
    return None if found is None else found.request


def seconds_left() -> float | None:
    """Return how much time the calling code has left.

    It works in handlers, on the event loop and in workers, and in the functions and tasks that they start. The time is
    limited by the client's `Request-Timeout`, the route's `timeout` and each `budget(...)` block.

    Returns:
        Seconds, 0.0 at least. None: the code has no deadline.

    Example:
        ```python
        from tinysvc import cpu_route, seconds_left

        @cpu_route("/pi", timeout=2.0)
        def pi() -> float:
            total, n = 0.0, 0
            while n < 1_000_000 and (seconds_left() or 0.0) > 0.1:  # respond with what there is
                total, n = total + (-1) ** n / (2 * n + 1), n + 1
            return 4 * total
        ```
    """
    at = current_deadline()
    return None if at is None else max(0.0, at - monotonic())


def sooner(one: float | None, other: float | None) -> float | None:
    """The earlier of two deadlines; None is no deadline."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class budget:  # noqa: N801 - it reads as a function: async with budget(0.2)
    """Give a block of code at most so many seconds; it can only shorten the time that is left.

    At the deadline an `async with` block is cancelled and raises `BudgetExhausted`. Calls inside the block tell their
    callee how much time is left. In a cpu handler, `with budget(...)` limits the calls inside the block; it does not
    interrupt a computation.

    Args:
        seconds: Time for the block; 0 or more.

    Raises:
        ValueError: `seconds` is not a number, or less than 0.

    Example:
        ```python
        import asyncio

        from tinysvc import BudgetExhausted, budget

        async def main() -> None:
            try:
                async with budget(0.01):
                    await asyncio.sleep(60)
            except BudgetExhausted:
                print("too slow")

        asyncio.run(main())
        ```
    """

    __slots__ = ("_limit", "_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        if type(seconds) not in (int, float) or not 0 <= seconds < inf:
            raise ValueError(f"budget takes a number of seconds, 0 or more, not {seconds!r}")
        self._seconds = seconds
        self._limit: Any = None
        self._token: Any = None

    def __enter__(self) -> None:
        self._begin()

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    async def __aenter__(self) -> None:
        import asyncio  # a worker must not import it

        if self._begin():
            self._limit = asyncio.timeout(self._seconds)
            await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if self._limit is not None:
            try:
                await self._limit.__aexit__(kind, error, traceback)
            except TimeoutError:
                raise BudgetExhausted(f"The budget of {self._seconds:g} s is used up.") from error

    def _begin(self) -> bool:
        """Set the deadline. Whether it is earlier than the one around the block."""
        own, outer = monotonic() + self._seconds, current_deadline()
        self._token = current.set(Deadline(sooner(own, outer), current_request()))
        return outer is None or own < outer

    def _end(self) -> None:
        with suppress(ValueError):  # another task closes the generator that holds the block
            current.reset(self._token)


# The headers


def format_timeout(seconds: float) -> str:
    """The value of `Request-Timeout`: whole milliseconds, 1 at least. Rounded down: the callee ends first."""
    return f"{int(seconds * 1000) or 1}ms"


def parse_timeout(text: str) -> float:
    """The seconds in a value of `Request-Timeout`, as in "480ms" or "1.5s". ProtocolError 400."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ProtocolError(
            400,
            "Request-Timeout takes a number of at most 12 digits with a unit (us, ms, s, m or h), as in 480ms, "
            f"not {text[:40]!r}.",
        )
    return float(match[1]) * _UNITS[match[2]]


def timeout_of(fields: dict[bytes, bytes]) -> float:
    """The seconds that a client gives by its headers; the smaller, if it sends both. ProtocolError 400."""
    seconds = inf
    if (value := fields.get(REQUEST_TIMEOUT)) is not None:
        seconds = parse_timeout(value.decode("latin-1"))
    if (value := fields.get(CONNECT_TIMEOUT_MS)) is not None:
        text = value.decode("latin-1")
        if not _MILLISECONDS.fullmatch(text):
            raise ProtocolError(
                400, f"Connect-Timeout-Ms takes a number of milliseconds of at most 10 digits, not {text[:40]!r}."
            )
        seconds = min(seconds, int(text) / 1000)
    return seconds
