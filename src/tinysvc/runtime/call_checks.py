"""The check of calls at start-up: the source of a service's modules is read for `call(handler, ...)`.

Found are `call(f, ...)`, `call.stream(f, ...)`, `call.wait(f, ...)` and `call.forwarding(...)(f, ...)`, where `f` is a
name, or a name in a module, of the module's top level. All other calls are checked when they are made.
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, NamedTuple

from ..service.plan import Plan
from ..service.routes import recorded, route_of
from .calls import Call

_METHODS = frozenset({"stream", "wait"})


class CalledHandler(NamedTuple):
    """A handler that the code of a service calls."""

    function: Callable[..., Any]
    where: str
    """File and line of the call."""


def called_handlers(plans: Iterable[Plan]) -> Iterator[CalledHandler]:
    """The handlers that the code of these routes, and of the modules around it, calls.

    Code of another handler or resource is left out: it is not served.
    """
    plans = list(plans)
    served = {plan.route.function for plan in plans}
    resources = {
        resource.function
        for plan in plans
        for each in (plan.cpu_resources, plan.server_resources, plan.request_resources)
        for resource in each.values()
    }
    names = {getattr(function, "__module__", "") for function in served | resources}
    for module in filter(None, map(sys.modules.get, sorted(names))):
        yield from _called_in(module, served | resources)


def _called_in(module: types.ModuleType, served: Container[Callable[..., Any]]) -> Iterator[CalledHandler]:
    names = vars(module)
    if not any(isinstance(value, Call) or getattr(value, "__name__", "") == "tinysvc" for value in names.values()):
        return  # most modules: their source need not be read
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):  # it has no source, as in an interactive session
        return
    for part in tree.body:
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = names.get(part.name)
            if recorded(function) and function not in served:
                continue
        for node in ast.walk(part):
            if isinstance(node, ast.Call) and node.args and _is_call(node.func, names):
                function = _value(node.args[0], names)
                if route_of(function) is not None:
                    yield CalledHandler(function, f"{module.__file__}:{node.lineno}")


def _is_call(node: ast.expr, names: dict[str, Any]) -> bool:
    """Whether an expression is `call`, or one of its methods that take a handler."""
    if isinstance(node, ast.Call):  # call.forwarding(...)
        function = node.func
        return isinstance(function, ast.Attribute) and function.attr == "forwarding" and _is_call(function.value, names)
    if isinstance(node, ast.Attribute) and node.attr in _METHODS:
        return _is_call(node.value, names)
    return isinstance(_value(node, names), Call)


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that a dotted name has at the module's top level; None if it has none."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, names), node.attr, None)
    return None
