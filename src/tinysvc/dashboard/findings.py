"""The findings: sentences at the head of the page that name each trouble and its place. The worst one comes first.

    down        a called service that is avoided           crashes     workers that end again and again
    saturated   a pool whose jobs wait                     blocked     a handler holds the event loop
    leak        a worker whose memory grows steadily       failing     a route that responds with errors
    artifact    a version that cannot be served            slow        a route that takes long

A cause hides its effects: a route is not called slow while its pool is saturated or a service that it calls is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .details import ErrorDetails, WorkerDetails

Rows = Mapping[str, Sequence[Any]]

CRASHES = 3
"""Bad ends of workers in a minute that are more than an accident."""

MIN_ERRORS, ERROR_SHARE = 3, 0.05
"""Errors of a route in a minute, and their share of its requests, that are worth a headline."""

SLOW, MIN_REQUESTS = 1.0, 3
"""Seconds of the median request, of at least so many in a minute, that are slow for a person who waits."""

SLOWER, MIN_SLOWER = 5.0, 0.1
"""A route that takes so many times as long as before, and at least so many seconds, has become slow."""

LAG = 0.1
"""Seconds by which the loop is late one time in ten (as server/watchdog.py). Once may be the machine's fault."""

RECENT = 60.0
"""Seconds in which an error explains a finding."""


class Finding(msgspec.Struct):
    """One thing that is wrong."""

    kind: str
    is_severe: bool
    """Requests fail."""
    text: str
    detail: str
    target: str
    """The row of the page that it is about, as in "pool default"."""


def findings_of(rows: Rows, total: Mapping[str, Any], problems: Sequence[str]) -> list[Finding]:
    """The findings, the worst one first.

    Args:
        rows: The tables of the document.
        total: Its sums.
        problems: Sentences of the server processes.
    """
    found = [Finding("problem", True, problem[:1].upper() + problem[1:] + ".", "", "") for problem in problems]
    found += [*_down(rows), *_crashes(rows), *_saturated(rows), *_blocked(total), *_leaks(rows), *_artifacts(rows)]
    explained = _explained(found, rows)
    slow = () if total["blockers"] else _slow(rows)  # a blocked loop slows every route
    found += [each for each in (*_failing(rows), *slow) if each.target not in explained]
    return sorted(found, key=lambda each: not each.is_severe)  # the order above otherwise


def _recent_errors(rows: Rows) -> list[ErrorDetails]:
    """The newest first."""
    errors: list[ErrorDetails] = list(rows["errors"])
    newest = max((each.time for each in errors), default=0.0)
    return [each for each in errors if each.time > newest - RECENT]


def _routes_of(errors: Sequence[ErrorDetails]) -> str:
    """The routes with these errors, the most frequent first."""
    return _list([route for route, _ in Counter(each.route for each in errors if each.route).most_common(3)])


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _down(rows: Rows) -> Iterator[Finding]:
    for row in rows["services"]:
        avoided = [name for name, is_avoided in row["replicas"].items() if is_avoided]
        if not avoided:
            continue
        count = len(row["replicas"])
        is_down = len(avoided) == count
        failed = [each for each in _recent_errors(rows) if _is_of_call(each, avoided, row["service"])]
        callers = _routes_of(failed)
        text = (
            f"The service {row['service']} is down: "
            if is_down
            else f"The service {row['service']} has lost {len(avoided)} of {count} replicas: "
        )
        text += f"{_list(avoided)} {'does' if len(avoided) == 1 else 'do'} not respond."
        detail = f"Requests of {callers} fail. {failed[0].text}" if failed else ""
        yield Finding("down", is_down, text, detail, f"service {row['service']}")


def _is_of_call(error: ErrorDetails, replicas: Sequence[str], service: str) -> bool:
    return error.error.startswith("Call") or service in error.text or any(each in error.text for each in replicas)


def _crashes(rows: Rows) -> Iterator[Finding]:
    for row in rows["pools"]:
        count = sum(row["bad_ends"].values())
        if count < CRASHES:
            continue
        died = [each for each in _recent_errors(rows) if each.error in ("WorkerDied", "JobRefused", "NoWorkers")]
        routes = _routes_of([each for each in died if each.error == "WorkerDied"] or died)
        causes = _list([f"{n} {cause.replace('_', ' ')}" for cause, n in row["bad_ends"].items()])
        text = f"Workers of the pool {row['pool']} end again and again: {count} in the last minute ({causes})"
        text += f", while they ran {routes}." if routes else "."
        yield Finding("crashes", True, text, died[0].text if died else "", f"pool {row['pool']}")


def _saturated(rows: Rows) -> Iterator[Finding]:
    for row in rows["pools"]:
        states = row["states"]
        idle, busy = states.get("idle", 0), states.get("busy", 0)
        if (row["always_waiting"] == 0 and not row["refused"]) or idle:
            continue
        workers: list[WorkerDetails] = [each for each in rows["workers"] if each.pool == row["pool"] and each.runs]
        runs = Counter(each.runs for each in workers).most_common(1)
        text = f"The pool {row['pool']} is saturated: all {busy} workers are busy, and {row['waiting']} jobs wait."
        if runs:
            route, count = runs[0]
            text += f" {count} of the workers run {route}."
        facts = []
        if row["wait_p50"] is not None:
            facts.append(f"A job waits for {_seconds(row['wait_p50'])} and runs for {_seconds(row['run_p50'] or 0)}")
        if row["refused"]:
            facts.append(f"{row['refused']} were refused in the last minute, because the queue was full")
        detail = "; ".join(facts)
        yield Finding("saturated", bool(row["refused"]), text, detail + "." if detail else "", f"pool {row['pool']}")


def _blocked(total: Mapping[str, Any]) -> Iterator[Finding]:
    lag = total["often_late"]
    if blockers := total["blockers"]:
        text = f"{_list(blockers)} {'blocks' if len(blockers) == 1 else 'block'} the event loop: "
        text += "no other request is served meanwhile."
        detail = "Make it @cpu_route if it computes; make it a plain def, or await, if it waits. The log has its stack."
        yield Finding("blocked", False, text, detail, f"route {blockers[0]}")
    elif lag is not None and lag >= LAG:
        text = f"The event loop is late by {_seconds(lag)}: a handler computes, or waits without await."
        yield Finding("blocked", False, text, "", "")


def _leaks(rows: Rows) -> Iterator[Finding]:
    leaking: list[WorkerDetails] = [each for each in rows["workers"] if each.growth]
    for each in sorted(leaking, key=lambda worker: -worker.growth)[:3]:
        text = f"Worker {each.number} of the pool {each.pool} leaks: its memory has grown by {_size(each.growth)} "
        text += f"in {_seconds(each.growth_time)}, to {_size(each.memory)}"
        text += f", while it mostly ran {each.mostly}." if each.mostly else "."
        detail = "The option max_memory replaces such a worker before memory runs out."
        yield Finding("leak", False, text, detail, f"worker {each.process} {each.pool} {each.number}")


def _artifacts(rows: Rows) -> Iterator[Finding]:
    """Not severe: the version that was served before serves on."""
    for row in rows["artifacts"]:
        if row["problem"]:
            text = f"The artifact {row['artifact']} has a problem: {row['problem']}."
            yield Finding("artifact", False, text, "", f"artifact {row['artifact']}")


def _explained(found: Sequence[Finding], rows: Rows) -> set[str]:
    """The targets of routes whose trouble another finding explains."""
    pools = {each.target for each in found if each.kind in ("saturated", "crashes")}
    explained = {f"route {row['route']}" for row in rows["routes"] if f"pool {row['pool']}" in pools}
    if any(each.kind == "down" for each in found):
        explained |= {f"route {each.route}" for each in _recent_errors(rows) if each.error.startswith("Call")}
    return explained


def _failing(rows: Rows) -> Iterator[Finding]:
    for row in rows["routes"]:
        if row["errors"] < MIN_ERRORS or row["errors"] < ERROR_SHARE * row["count"]:
            continue
        errors = [each for each in _recent_errors(rows) if each.route == row["route"]]
        text = f"{row['route']} fails: {row['errors']} of {row['count']} requests in the last minute."
        detail = f"{errors[0].error}: {errors[0].text} (request {errors[0].request})" if errors else ""
        yield Finding("failing", True, text, detail, f"route {row['route']}")


def _slow(rows: Rows) -> Iterator[Finding]:
    for row in rows["routes"]:
        median, usual = row["p50"], row["usual"]
        if row["is_stream"] or median is None or row["count"] < MIN_REQUESTS:
            continue
        is_slower = usual is not None and median >= max(MIN_SLOWER, SLOWER * usual)
        if median < SLOW and not is_slower:
            continue
        text = f"{row['route']} is slow: half of its requests take {_seconds(median)} or more"
        text += f", usually {_seconds(usual)}." if is_slower else "."
        yield Finding("slow", False, text, f"1 in 100 takes {_seconds(row['p99'])}.", f"route {row['route']}")


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if value < 120 else f"{value / 60:.0f} min"


def _size(value: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError(value)
