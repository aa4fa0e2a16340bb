"""Tables for people: the routes of a service, and the settings with where each comes from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from ..core.settings import Pool, Settings, origins
from ..service.routes import Route
from ..service.service import Service

COLOURS = {"io": "32", "cpu": "33", "dim": "2"}
"""As terminals have them (ECMA-48): green waits, yellow computes."""


def is_colourful(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether to write with colours: to a terminal, if nobody objects (https://no-color.org)."""
    environ = os.environ if environ is None else environ
    try:
        return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    except ValueError:  # it is closed
        return False


def route_table(service: Service, *, colour: bool = False) -> str:
    """The routes, one a line: method, path, io or cpu, handler, and what it has been given beside."""
    rows = [
        (" ".join(route.methods), path, route.kind, _handler(route), _options(route))
        for path, route in service.all_routes()
    ]
    return _columns(rows, colour)


def _handler(route: Route) -> str:
    function = route.function
    return f"{function.__module__}.{function.__qualname__}"


def _options(route: Route) -> str:
    facts = {
        "pool": route.pool if route.pool != "default" else None,
        "timeout": route.timeout and f"{route.timeout:g}s",
        "limit": route.limit,
        "batch": route.batch and route.batch.size,
        "cache": route.cache and f"{route.cache.seconds:g}s",
    }
    return " ".join(f"{name}={fact}" for name, fact in facts.items() if fact)


def settings_table(
    settings: Settings, overrides: Mapping[str, Any], environ: Mapping[str, str], service_options: Mapping[str, Any]
) -> str:
    """Every option with its value and where that comes from."""
    known = origins(overrides, environ, service_options)
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return _columns([(name, _shown(value), known.get(name, "default")) for name, value in values.items()], False)


def _shown(value: object) -> str:
    """As it would be written on the command line; of a mapping of pools, each with what it was given."""
    if not isinstance(value, Mapping):
        return repr(value) if isinstance(value, str) else str(value)
    pools = [(name, pool.given() if isinstance(pool, Pool) else {repr(pool): ""}) for name, pool in value.items()]
    return repr(" ".join(f"{name}:{','.join(f'{k}={v}' for k, v in given.items())}" for name, given in pools))


def _columns(rows: Sequence[Sequence[str]], colour: bool) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(map(_coloured, line) if colour else line).rstrip() for line in lines)


def _coloured(cell: str) -> str:
    code = COLOURS.get(cell.strip())
    return f"\x1b[{code}m{cell}\x1b[0m" if code else cell
