"""Context variables (PEP 567): all code of one request shares their values, and the next request never sees them.

coroutines    The task of a connection runs in one context. If a request changes it, it is the last request of this
              task: the connection continues in a new task, with the context of the start-up.
threads       The threads of a request share a second context, because a token is valid only in the context that made
              it. The values are copied from the task's context before each call, and back after it.
streams       Middleware resets its variables before the first piece is sent. A stream therefore saves the values of its
              handler, and restores them when it continues.
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
    # `one != other` would call __eq__ of the author's values. In most contexts there are none.
    return bool(one) and any(other.get(variable, _UNSET) is not value for variable, value in one.items())


def restore(values: Context) -> None:
    """Set the variables of the current context as they are in `values`."""
    for variable, value in values.items():
        if variable is not _threads and variable.get(_UNSET) is not value:
            variable.set(value)


class SavedVariables:
    """The current values, for code that continues later in another context."""

    def __init__(self) -> None:
        self._values: Context | None = copy_context()

    def restore(self) -> None:
        """Restore the values once. Later calls do nothing: the code may have set other values since."""
        if self._values is not None:
            values, self._values = self._values, None
            restore(values)


def copy_back(after: Context, before: Context) -> None:
    """Change the current context from `before` to `after`. A variable without a default cannot be unset."""
    restore(after)
    for variable in before:
        if variable not in after and variable is not _threads:
            default = Context().run(_default_of, variable)
            if default is not _UNSET:
                variable.set(default)


class ThreadContext:
    """The context that all threads of one task share."""

    def __init__(self, task: object) -> None:
        self._context: Context | None = None  # None until the first thread runs
        self._before = Context()
        self._task = ref(task)

    @classmethod
    def of(cls, task: object) -> ThreadContext:
        """The one of the current task."""
        threads = _threads.get()
        if threads is None or threads._task() is not task:  # a task inherits the variables of its creator
            threads = cls(task)
        return threads

    def within(self, function: Callable[[], T]) -> Callable[[], T]:
        """`function` for a thread, with the current values of the task."""
        self._before = copy_context()
        if self._context is None:
            self._context = self._before.copy()
            return partial(self._context.run, function)
        return partial(self._context.run, _run_with, self._before, function)

    def copy_back(self) -> None:
        """Give the task the values that the thread has set."""
        after = self._context
        if after is None or not _differ(after, self._before):
            return  # the context of the task stays the same: most requests need no new task after them
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
