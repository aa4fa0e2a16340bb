"""Context variables (PEP 567): one context for a request, in all that runs for it, and nothing of it in the next.

coroutines    a connection's task runs in one context. A request that has changed it is the last one of that task:
              the connection goes on in a new task, with a context as it was at start-up.
threads       a request's threads share a second context, as a token is good only where it was made. What it holds
              is copied from the task's before each call, and back behind it.
streams       middleware resets its variables before the first piece is sent. So a stream remembers the values that
              its handler had, and restores them when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, TypeVar
from weakref import ref

T = TypeVar("T")

_UNSET: Any = object()


def differs_from(base: Context) -> bool:
    """Whether the current context holds other variables, or other values, than `base`."""
    return _differ(copy_context(), base)


def _differ(one: Context, other: Context) -> bool:
    if len(one) != len(other):
        return True
    # Not `one != other`, which would compare an author's values by their own __eq__. Mostly there are none.
    return bool(one) and any(other.get(variable, _UNSET) is not value for variable, value in one.items())


def restore(values: Context) -> None:
    """Set the variables of the current context as they are in `values`."""
    for variable, value in values.items():
        if variable is not _threads and variable.get(_UNSET) is not value:
            variable.set(value)


class SavedVariables:
    """The variables that stand now: what goes on later, in another context, begins with them."""

    def __init__(self) -> None:
        self._values: Context | None = copy_context()

    def restore(self) -> None:
        """At the first call; later ones do nothing, as what has gone on may have set others."""
        if self._values is not None:
            values, self._values = self._values, None
            restore(values)


def copy_back(after: Context, before: Context) -> None:
    """Give the current context, which was `before`, the variables of `after`. One without a default cannot be unset."""
    restore(after)
    for variable in before:
        if variable not in after and variable is not _threads:
            default = Context().run(_default_of, variable)
            if default is not _UNSET:
                variable.set(default)


class ThreadContext:
    """The context of the threads that one task waits for."""

    def __init__(self, task: object) -> None:
        self._context: Context | None = None  # none until a thread runs
        self._before = Context()
        self._task = ref(task)

    @classmethod
    def of(cls, task: object) -> ThreadContext:
        """Those of the current task."""
        threads = _threads.get()
        if threads is None or threads._task() is not task:  # a task inherits the variables of its maker
            threads = cls(task)
        return threads

    def within(self, function: Callable[[], T]) -> Callable[[], T]:
        """`function` for a thread, with the variables that the task has now."""
        self._before = copy_context()
        if self._context is None:
            self._context = self._before.copy()
            return partial(self._context.run, function)
        return partial(self._context.run, _run_with, self._before, function)

    def copy_back(self) -> None:
        """Give the task the variables as the thread has left them."""
        after = self._context
        if after is None or not _differ(after, self._before):
            return  # and the task's context stays as it is: mostly a new one is not needed for the next request
        _threads.set(self)
        copy_back(after, self._before)


_threads: ContextVar[ThreadContext | None] = ContextVar("threads", default=None)


def _run_with(values: Context, function: Callable[[], T]) -> T:
    restore(values)
    return function()


def _default_of(variable: ContextVar[Any]) -> Any:
    try:
        return variable.get()
    except LookupError:
        return _UNSET
