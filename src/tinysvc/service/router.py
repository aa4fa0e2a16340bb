"""The router: finds the target for a path and method among path patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar
from urllib.parse import quote, unquote

from ..core.errors import ConfigurationError, NoRoute, source_location

H = TypeVar("H")

ROUTABLE_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
"""HEAD and OPTIONS need no route: GET serves HEAD, and OPTIONS gets `Allow`."""

PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")
"""A segment that is a parameter: `{name}`, or `{name:path}` for the rest of the path."""


class _Node(Generic[H]):
    """A node of the tree of paths: literal children come first, then a parameter, then the rest of the path."""

    __slots__ = ("literals", "methods", "parameter", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[H]] = {}
        self.parameter: _Node[H] | None = None
        self.rest: dict[str, tuple[H, tuple[str, ...]]] = {}
        self.methods: dict[str, tuple[H, tuple[str, ...]]] = {}


class Router(Generic[H]):
    """A table of (path pattern, method) -> target. A match takes time by the number of segments, not of routes."""

    def __init__(self) -> None:
        self._root: _Node[H] = _Node()
        self._literal: dict[str, dict[str, H]] = {}

    def add(self, path: str, methods: Iterable[str], target: H, function: Callable[..., Any]) -> None:
        """Add a target. GET also serves HEAD. ConfigurationError if another target has the path and method."""
        node, names, rest = self._root, [], False
        for segment in path.split("/")[1:]:
            parameter = PARAMETER.fullmatch(segment)
            if parameter is None:
                node = node.literals.setdefault(_as_registered(segment), _Node())
                continue
            names.append(parameter[1])
            rest = bool(parameter[2])
            if not rest:
                node.parameter = node.parameter or _Node()
                node = node.parameter
        table = node.rest if rest else node.methods
        for method in methods:
            if method in table:
                taken = f"{method} {path} already has a handler, {source_location(table[method][0])}"
                raise ConfigurationError.at(function, f"{taken}; change path or methods")
            table[method] = target, tuple(names)
        if not names:
            self._literal[quote(path, safe="/!$&'()*+,;=:@")] = {m: t for m, (t, _) in node.methods.items()}

    def has(self, method: str, path: str) -> bool:
        """Whether this very path, without parameters, has a target for the method."""
        return method in self._literal.get(path, {})

    def match(self, method: str, path: str) -> tuple[H, dict[str, str] | None]:
        """The target and the decoded parameters, None for none. NoRoute 404, or 405 with `Allow`."""
        methods = self._literal.get(path)
        if methods is not None and method in methods:
            return methods[method], None
        return self._search(method, path)

    def _search(self, method: str, path: str) -> tuple[H, dict[str, str] | None]:
        values: list[str] = []
        segments = path.split("/")
        found = _find(self._root, segments, 1, method, values)
        if found is None:
            allowed = {
                other: found[0] for other in ROUTABLE_METHODS if (found := _find(self._root, segments, 1, other, []))
            }
            if allowed:
                error = NoRoute(405, f"{method} is not served at this path.", headers=[("allow", allow(allowed))])
                error.beside = next(iter(allowed.values()))
                raise error
            raise NoRoute(404, "Nothing is served at this path.")
        target, names = found
        if "%" in path:
            values = [unquote(value) for value in values]
        return target, dict(zip(names, values))  # noqa: B905 - each name has one value


def allow(methods: Iterable[str]) -> str:
    """The value of `Allow` for a path with these methods (RFC 9110, 10.2.1)."""
    given = set(methods) | {"OPTIONS"}
    return ", ".join(sorted(given | {"HEAD"} if "GET" in given else given))


def _find(
    node: _Node[H], segments: list[str], position: int, method: str, values: list[str]
) -> tuple[H, tuple[str, ...]] | None:
    """The first leaf that matches path and method; `values` collects the values of its parameters.

    Literals come before parameters, parameters before the rest. Without a match, `values` is unchanged.
    """
    if position == len(segments):
        return _by_method(node.methods, method)
    segment = segments[position]
    literal = node.literals.get(segment)
    if literal is None and "%" in segment:  # `%7E` and `~` are the same path (RFC 3986, 6.2.2.2)
        literal = node.literals.get(_as_registered(unquote(segment)))
    if literal is not None:
        found = _find(literal, segments, position + 1, method, values)
        if found is not None:
            return found
    if node.parameter is not None and segment:
        values.append(segment)
        found = _find(node.parameter, segments, position + 1, method, values)
        if found is not None:
            return found
        values.pop()
    found = _by_method(node.rest, method)
    if found is not None:
        values.append("/".join(segments[position:]))
    return found


def _by_method(table: dict[str, tuple[H, tuple[str, ...]]], method: str) -> tuple[H, tuple[str, ...]] | None:
    return table.get(method) or (table.get("GET") if method == "HEAD" else None)


def _as_registered(segment: str) -> str:
    """A segment as a key of the tree: percent-encoded where necessary."""
    return quote(segment, safe="!$&'()*+,;=:@")
