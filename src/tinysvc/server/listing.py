"""Tables to print: the routes of a service, and the settings with their origins."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from ..core import printing
from ..core.pool_settings import Pool
from ..core.settings import Settings, origins
from ..service.job_verbs import VERBS
from ..service.routes import Route
from ..service.service import Service

COLOURS = {"io": "32", "cpu": "33", "job": "35", "dim": "2"}
"""Colours of terminals (ECMA-48): green for io, yellow for cpu, magenta for durable jobs."""


def is_colourful(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether to use colours: the stream is a terminal, and NO_COLOR is not set (https://no-color.org)."""
    environ = os.environ if environ is None else environ
    try:
        return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    except ValueError:  # the stream is closed
        return False


def route_table(service: Service, *, colour: bool = False) -> str:
    """The routes, one per line: methods, path, io or cpu or job, handler, options."""
    rows = [
        (
            " ".join(methods),
            place,
            "job" if route.durable else route.kind,
            _handler(route),
            _options(route) if place == path else "",
        )
        for path, route in service.all_routes()
        for place, methods in _served(path, route).items()
    ]
    return columns(rows, colour)


def _served(path: str, route: Route) -> dict[str, list[str]]:
    """The methods by path: a job route serves some paths below its own."""
    found: dict[str, list[str]] = {}
    for verb in VERBS if route.durable else ():
        found.setdefault(verb.path(path), []).append(verb.method)
    return found or {path: list(route.methods)}


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
        "attempts": route.durable and route.durable.retry.attempts,
        "max_waiting": route.durable and route.durable.max_waiting,
        "every": route.durable and route.durable.every and f'"{route.durable.every}"',
        "zone": route.durable and route.durable.every and route.durable.zone,
    }
    return " ".join(f"{name}={fact}" for name, fact in facts.items() if fact)


def settings_table(
    settings: Settings, overrides: Mapping[str, Any], environ: Mapping[str, str], service_options: Mapping[str, Any]
) -> str:
    """Every option with its value and its origin."""
    known = origins(overrides, environ, service_options)
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return columns([(name, _shown(value), known.get(name, "default")) for name, value in values.items()], False)


def _shown(value: object) -> str:
    """The value as on the command line; for pools, each with its options."""
    if not isinstance(value, Mapping):
        return repr(value) if isinstance(value, str) else str(value)
    pools = [(name, pool.given() if isinstance(pool, Pool) else {repr(pool): ""}) for name, pool in value.items()]
    return repr(" ".join(f"{name}:{','.join(f'{k}={v}' for k, v in given.items())}" for name, given in pools))


def columns(rows: Sequence[Sequence[str]], colour: bool = False) -> str:
    """Rows of cells as lines, each column as wide as its widest cell."""
    return printing.columns(rows, _coloured if colour else str)


def _coloured(cell: str) -> str:
    code = COLOURS.get(cell.strip())
    return f"\x1b[{code}m{cell}\x1b[0m" if code else cell
