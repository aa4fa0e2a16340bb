"""The document that the page shows: one for each second, made of the history. Plain values, ready for JSON.

Rates are those of the last ten seconds, quantiles and counts those of the last minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from ..pool.observer import CAUSES
from .details import ArtifactDetails
from .findings import Finding, findings_of
from .history import History, Window
from .reading import CandidateTotals, Reading, VariantTotals

RATE_WINDOW = 10.0
WINDOW = 60.0
LONG = 900.0
"""Seconds: the whole history."""

BAD_ENDS = tuple(cause for cause in CAUSES if cause not in ("replaced", "shutdown", "abandoned", "deadline"))
"""Causes of the end of a worker that show a fault of the code or of the machine."""


@dataclass(frozen=True)
class RouteAbout:
    """What is known of a route from the start."""

    kind: str
    pool: str = ""
    """Of a cpu route."""
    is_stream: bool = False
    """Its duration says nothing: it lasts as long as the client likes."""


def document_of(history: History, about: Mapping[str, RouteAbout], own_process: int) -> dict[str, Any] | None:
    """The document; None before the second reading.

    Args:
        history: The readings.
        about: The routes, as in "GET /items/{name}".
        own_process: The process id of the server process that serves the page.
    """
    short, minute, long = history.window(RATE_WINDOW), history.window(WINDOW), history.window(LONG)
    if short is None or minute is None or long is None:
        return None
    now = short.after
    rows: dict[str, list[Any]] = {
        "routes": [_route(name, about.get(name, RouteAbout("io")), short, minute, long) for name in now.routes],
        "pools": [_pool(name, short, minute, long, history) for name in now.pools],
        "workers": [worker for process in now.processes for worker in process.workers],
        "services": [_service(name, short, minute) for name in now.services],
        "candidates": [_candidate(minute.candidate(name)) for name in sorted(now.candidates)],
        "artifacts": _artifacts(now),
        "durable": [{"route": route, "states": states} for route, states in sorted(now.durable.items())],
        "errors": sorted((e for process in now.processes for e in process.errors), key=lambda e: -e.time)[:50],
    }
    rows["routes"].sort(key=lambda each: (-each["share"], each["route"]))
    problems = sorted({problem for process in now.processes for problem in process.problems})
    total = _total(short, minute)
    total["blockers"] = sorted({process.blocker for process in now.processes if process.blocker})
    findings: list[Finding] = findings_of(rows, total, problems)
    document = {
        "time": now.time,
        "process": own_process,
        "processes": [process.process for process in now.processes],
        "window": short.seconds,
        "total": total,
        "findings": findings,
        **rows,
    }
    found: dict[str, Any] = msgspec.to_builtins(document)
    return found


def _artifacts(now: Reading) -> list[dict[str, Any]]:
    """One row for each artifact: its versions in all server processes, its oldest look, the first trouble."""
    found: dict[str, list[ArtifactDetails]] = {}
    for process in now.processes:
        for each in process.artifacts:
            found.setdefault(each.artifact, []).append(each)
    return [
        {
            "artifact": artifact,
            "versions": Counter("none" if each.version is None else str(each.version) for each in details),
            "age": max((each.age for each in details if each.age is not None), default=None),
            "problem": next((each.problem for each in details if each.problem), ""),
        }
        for artifact, details in sorted(found.items())
    ]


def _total(short: Window, minute: Window) -> dict[str, Any]:
    values, recent, longer = short.after.values, short.all_routes(), minute.all_routes()
    return {
        "rate": recent.times.count / short.seconds,
        "errors": longer.errors,
        "requests": longer.times.count,
        "p50": longer.times.quantile(0.5),
        "p99": longer.times.quantile(0.99),
        "active": values.get("http.server.active_requests", 0),
        "connections": values.get("tinysvc.connections", 0),
        "streams": values.get("tinysvc.streams", 0),
        "websockets": values.get("tinysvc.websockets", 0),
        "cpu": short.growth("process_cpu_seconds") / short.seconds,
        "memory": values.get("process_resident_memory_bytes", 0),
        "lag": short.lag().quantile(0.99),
        "often_late": short.lag().quantile(0.9),
    }


def _route(name: str, about: RouteAbout, short: Window, minute: Window, long: Window) -> dict[str, Any]:
    recent, longer, all_time = short.route(name), minute.route(name), long.route(name)
    usual = minute.before.routes.get(name)
    before = None if usual is None else usual.times.since(getattr(long.before.routes.get(name), "times", None))
    return {
        "route": name,
        "kind": about.kind,
        "pool": about.pool,
        "is_stream": about.is_stream,
        "rate": recent.times.count / short.seconds,
        "count": longer.times.count,
        "errors": longer.errors,
        "p50": longer.times.quantile(0.5),
        "p99": longer.times.quantile(0.99),
        "usual": None if before is None or minute.before is long.before else before.quantile(0.5),
        "share": longer.times.sum if not about.is_stream else 0.0,
        "seen": all_time.times.count,
    }


def _pool(name: str, short: Window, minute: Window, long: Window, history: History) -> dict[str, Any]:
    recent, longer = short.pool(name), minute.pool(name)
    ends = long.pool(name).ends if name in long.after.pools else {}
    newest: list[Reading] = list(history.readings())[-3:]
    return {
        "pool": name,
        "waiting": recent.waiting,
        "always_waiting": min(_waiting(each, name) for each in newest) if len(newest) == 3 else 0,
        "states": recent.states,
        "rate": recent.ran.count / short.seconds,
        "wait_p50": longer.waited.quantile(0.5),
        "wait_p99": longer.waited.quantile(0.99),
        "run_p50": longer.ran.quantile(0.5),
        "run_p99": longer.ran.quantile(0.99),
        "refused": longer.outcomes.get("queue_full", 0),
        "late": longer.outcomes.get("deadline_in_queue", 0),
        "bad_ends": {cause: n for cause, n in longer.ends.items() if n and cause in BAD_ENDS},
        "ends": {cause: n for cause, n in ends.items() if n},
    }


def _waiting(reading: Reading, pool: str) -> int:
    found = reading.pools.get(pool)
    return 0 if found is None else found.waiting


def _service(name: str, short: Window, minute: Window) -> dict[str, Any]:
    recent, longer = short.service(name), minute.service(name)
    return {
        "service": name,
        "rate": recent.times.count / short.seconds,
        "count": longer.times.count,
        "errors": longer.errors,
        "retries": longer.retries,
        "p50": longer.times.quantile(0.5),
        "p99": longer.times.quantile(0.99),
        "replicas": dict(sorted(longer.replicas.items())),
    }


def _candidate(totals: CandidateTotals) -> dict[str, Any]:
    differences = totals.differences
    return {
        "route": totals.route,
        "artifact": totals.artifact,
        "served": _variant(totals.variants.get("served", VariantTotals())),
        "candidate": _variant(totals.variants.get("candidate", VariantTotals())),
        "difference": differences.sum / differences.count if differences.count else None,
        "skipped": totals.skipped,
    }


def _variant(totals: VariantTotals) -> dict[str, Any]:
    times = totals.times
    return {
        "count": times.count,
        "errors": totals.errors,
        "p50": times.quantile(0.5) if times.count else None,
        "p99": times.quantile(0.99) if times.count else None,
    }


# Charts


def charts_of(history: History) -> dict[str, Any]:
    """Values of each step of the history: of all requests, of each route and of each pool."""
    steps = [Window(before, after) for before, after in history.steps()]
    totals = [window.all_routes() for window in steps]
    newest = history.newest
    return {
        "times": [round(window.after.time, 1) for window in steps],
        "rate": [_short(total.times.count / window.seconds) for window, total in zip(steps, totals, strict=True)],
        "errors": [_short(total.errors / window.seconds) for window, total in zip(steps, totals, strict=True)],
        "p99": [_short(total.times.quantile(0.99)) for total in totals],
        "memory": [_memory(window.after) for window in steps],
        "routes": {
            name: [_short(window.route(name).times.quantile(0.99)) for window in steps] for name in _busiest(newest)
        },
        "pools": {
            name: [_waiting(window.after, name) for window in steps] for name in (newest.pools if newest else ())
        },
    }


CHARTED_ROUTES = 40
"""Routes with a chart: more than a screen."""


def _busiest(newest: Reading | None) -> list[str]:
    routes = newest.routes if newest else {}
    return sorted(routes, key=lambda name: -routes[name].times.sum)[:CHARTED_ROUTES]


def _memory(reading: Reading) -> int:
    return int(reading.values.get("process_resident_memory_bytes", 0)) + sum(
        worker.memory for process in reading.processes for worker in process.workers
    )


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
