"""The check of calls at start-up: the source of a service's handlers is read for `call(handler, ...)`.

Found are `call(f, ...)`, `call.stream(f, ...)`, `call.wait(f, ...)` and `call.forwarding(...)(f, ...)`, and the same of
`submit`, where `f` is a name, or a name in a module, of the module's top level. All other calls are checked when they
are made.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..service.plan import Plan
from ..service.routes import recorded, route_of
from .calls import Call
from .submit import Submit

_METHODS = frozenset({"stream", "wait"})


class CalledHandler(NamedTuple):
    """A handler that the code of a service calls."""

    function: Callable[..., Any]
    where: str
    """File and line of the call."""
    submits: bool = False
    """Whether it is submitted, by `submit`."""


def called_handlers(plans: Iterable[Plan]) -> Iterator[CalledHandler]:
    """The handlers that these routes call: in their handlers, resources, and the functions and classes that these use.

    Only names of the handler's own module are followed. Other code of a module may call handlers that run nowhere.
    """
    served: dict[str, list[str]] = {}
    for plan in plans:
        resources = [plan.cpu_resources, plan.server_resources, plan.request_resources]
        functions = [resource.function for each in resources for resource in each.values()]
        for function in [plan.route.function, *functions]:
            if isinstance(function, types.FunctionType):  # not a resource that a test has given
                served.setdefault(function.__module__, []).append(function.__name__)
    for name, functions_there in sorted(served.items()):
        if module := sys.modules.get(name):
            yield from _called_in(module, functions_there)


def _called_in(module: types.ModuleType, served: Iterable[str]) -> Iterator[CalledHandler]:
    names = vars(module)
    callers = [each for each in names.values() if isinstance(each, Call | Submit)]
    if not callers and not any(getattr(each, "__name__", "") == "tinysvc" for each in names.values()):
        return  # most modules: their source need not be read
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # it has no source, as in an interactive session
        return
    parts = {part.name: part for part in tree.body if isinstance(part, _DEFINITIONS)}
    waiting, seen = list(served), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in parts or name in seen:
            continue
        seen.add(name)
        for node in ast.walk(parts[name]):
            if isinstance(node, ast.Name) and not recorded(names.get(node.id)):
                waiting.append(node.id)
            elif isinstance(node, ast.Call) and node.args and (caller := _caller(node.func, names)) is not None:
                function = _value(node.args[0], names)
                if route_of(function) is not None:
                    yield CalledHandler(function, f"{module.__file__}:{node.lineno}", isinstance(caller, Submit))


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _caller(node: ast.expr, names: dict[str, Any]) -> Call | Submit | None:
    """`call` or `submit`, if an expression is that, or one of its methods that take a handler."""
    if isinstance(node, ast.Call):  # call.forwarding(...)
        function = node.func
        is_forwarding = isinstance(function, ast.Attribute) and function.attr == "forwarding"
        return _caller(function.value, names) if is_forwarding else None  # type: ignore[attr-defined]
    if isinstance(node, ast.Attribute) and node.attr in _METHODS:
        return _caller(node.value, names)
    found = _value(node, names)
    return found if isinstance(found, Call | Submit) else None


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that a dotted name has at the module's top level; None if it has none."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, names), node.attr, None)
    return None
