"""The source of a function that is built line by line, as that of a dataclass's `__init__` is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from keyword import iskeyword
from typing import Any

MAX_LINES = 1000
"""Types that are inside each other in many ways would make a function without end."""


class Unfit(Exception):
    """The function cannot handle a type or a value: plain values are the way for it."""


class FunctionSource:
    """Lines of a function with one parameter. Names of fields are identifiers (`Types.slot` checks it)."""

    def __init__(self, parameter: str) -> None:
        self._lines = [f"def function({parameter}):"]
        self._names: dict[str, Any] = {}
        self._depth = 1
        self._count = 0
        self._classes: list[Any] = []

    def add(self, line: str) -> None:
        """A line in the present block. Unfit if the function has become too long."""
        if len(self._lines) >= MAX_LINES:
            raise Unfit
        self._lines.append("    " * self._depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A block with this head, such as `for x in y:`, around the lines that are added inside the context."""
        self.add(head)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Take back the lines that are added inside the context, if it ends with Unfit, and raise it."""
        before = len(self._lines)
        try:
            yield
        except Unfit:
            del self._lines[before:]
            raise

    @contextmanager
    def inside(self, kind: type) -> Iterator[None]:
        """Add the lines for an object of this class inside the context. Unfit if the class contains itself."""
        if kind in self._classes:
            raise Unfit
        self._classes.append(kind)
        try:
            yield
        finally:
            self._classes.pop()

    def variable(self) -> str:
        """The name of a new variable."""
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: Any) -> str:
        """The name of a value that the function uses."""
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def function(self, result: str) -> Callable[[Any], Any]:
        """The function, which returns this expression. Unfit if it has too many blocks inside each other."""
        try:
            exec("\n".join([*self._lines, f"    return {result}"]), self._names)  # noqa: S102 - see above
        except SyntaxError:  # too many loops inside each other
            raise Unfit from None
        made: Callable[[Any], Any] = self._names["function"]
        return made


def attribute(source: str, name: str) -> str:
    """The expression of an attribute."""
    return f"getattr({source}, {name!r})" if iskeyword(name) else f"{source}.{name}"
