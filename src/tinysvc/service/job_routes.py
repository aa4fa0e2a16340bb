"""The decorator for durable jobs, and the checks of its options."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, Unpack

from ..core.cron import Cron, CronError
from ..core.errors import ConfigurationError
from ..core.responses import Middleware
from .job_options import DEFAULT_KEEP, DEFAULT_TIMEOUT, JobOptions, Retry
from .job_verbs import JOB_ID
from .route_options import check_called, check_options, check_pool, checked_about, checked_middleware
from .routes import About, Route, record

F = TypeVar("F", bound=Callable[..., Any])

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds in each unit that `keep` knows."""

MAX_KEEP = 100 * 366 * 86400.0
"""Seconds of `keep`, a hundred years: a longer time is a mistake in the unit, and has no date."""

MAX_ATTEMPTS = 1_000_000
"""Attempts of a Retry: with pauses of an hour, more than a hundred years."""

_NOT_FOR_JOBS = {
    "methods": "POST submits a job, and the other methods of its path are given",
    "batch": "a durable job runs by itself",
    "cache": "each accepted request is a job of its own; an Idempotency-Key finds the job of an earlier request",
    "on_disconnect": "an accepted job does not depend on its client",
    "idempotent": "a call of a job route sends an Idempotency-Key, and so may always be repeated",
    "hedge": "a job is accepted once",
}


def job_route(
    path: str,
    *,
    timeout: float | None = None,
    retry: Retry | None = None,
    keep: str | float = DEFAULT_KEEP,
    every: str = "",
    zone: str = "",
    pool: str = "default",
    limit: int | None = None,
    max_waiting: int | None = None,
    max_body_size: int | None = None,
    on_unreadable_save: Literal["fail", "restart"] = "fail",
    middleware: Iterable[Middleware] = (),
    **about: Unpack[About],
) -> Callable[[F], F]:
    """Serve `path` with a durable job: a plain `def` in a worker process, whose request is stored before the response.

    `POST` on the path stores a job (202), and `GET` lists the jobs. Below the path, `/{job_id}` is a job: `GET` gives
    its state and progress, `DELETE` cancels it, `GET .../result` gives its result, and `POST .../retry` starts a failed
    one again. Path, parameters and resources are those of `cpu_route`; resources of the request, such as the check of a
    token, and middleware guard all these requests. A parameter of the type `Job` is the running job.

    An accepted job runs at least once. After a crash of its worker or its server, it starts again; see `Retry`.

    Args:
        path: Path of the route, as in "/trainings".
        timeout: Seconds for each attempt, from its start. Then its worker is killed. None: one hour. 0: no deadline.
        retry: Attempts and pauses. None: `Retry()`, which is three attempts.
        keep: Time for which a job and its result are kept after its end, in seconds, or as in "90s", "15m", "12h",
            "7d", "2w".
        every: A cron expression with five fields (minute, hour, day of the month, month, day of the week): at each of
            these times one job is started, without a request. A time that the change to daylight saving skips is made
            up for right after the gap, and one that comes twice counts once. Times that passed while no server ran are
            made up for by one job. Empty: no schedule.
        zone: Time zone of `every` (IANA), as in "Europe/Berlin". Empty: UTC.
        pool: Name of the pool that runs the jobs.
        limit: Workers of the pool that jobs of the route may hold at one time. None: no limit.
        max_waiting: Jobs of the route that may wait at one time, else 503. None: as many as the disk holds.
        max_body_size: Longest request body in bytes, else 413. None: the server's `max_body_size`.
        on_unreadable_save: The consequence of a `job.saved` that cannot be read, as after a change of the code. "fail":
            the job fails. "restart": `job.saved` is None.
        middleware: Middleware around all requests of this route, the first outermost.
        **about: Documentation of the route, see `About`.

    Returns:
        A decorator. It records the route and returns the function untouched.

    Raises:
        ConfigurationError: The path or an option is wrong. The message names the function, its file and line.

    Example:
        ```python
        from tinysvc import Retry, job_route

        @job_route("/trainings", timeout=600, retry=Retry(attempts=2), keep="7d")
        def train(rates: list[float]) -> dict:
            return {"best": min(rates)}
        ```
    """
    check_called("job_route", path)

    def decorate(function: F) -> F:
        _check_own_options(function, about)
        check_options(function, None, max_body_size, timeout, limit)
        check_pool(function, pool)
        _check_one_result(function)
        route = Route(
            path=path,
            methods=("POST",),
            function=function,
            kind="cpu",
            timeout=DEFAULT_TIMEOUT if timeout is None else timeout,
            max_body_size=max_body_size,
            pool=pool,
            limit=limit,
            middleware=checked_middleware(middleware, function),
            about=checked_about(function, about),
            durable=JobOptions(
                retry=_checked_retry(function, retry),
                keep=_checked_keep(function, keep),
                every=_checked_every(function, every, zone),
                zone=zone or "UTC",
                max_waiting=_checked_max_waiting(function, max_waiting),
                on_unreadable_save=_checked_on_unreadable_save(function, on_unreadable_save),
            ),
        )
        _check_path(route)
        record(function, route)
        return function

    return decorate


def _check_own_options(function: Callable[..., Any], about: About) -> None:
    """Refuse an option of other routes with the reason, and a mistyped one with the option that was meant."""
    for name in about:
        if name in About.__annotations__:
            continue
        if name in _NOT_FOR_JOBS:
            raise ConfigurationError.at(function, f"{name} is no option of a job route: {_NOT_FOR_JOBS[name]}")
        options = [each for each in inspect.signature(job_route).parameters if each not in ("path", "about")]
        options += About.__annotations__
        known = difflib.get_close_matches(name, options, 1)
        remedy = f"did you mean {known[0]}?" if known else f"the options are {', '.join(options)}"
        raise ConfigurationError.at(function, f"{name!r} is not an option of a job route; {remedy}")


def _check_one_result(function: Callable[..., Any]) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError.at(
            function,
            "streams, but a durable job has one result, which is stored; return it, and report on the way with "
            "job.progress(...)",
        )


def _check_path(route: Route) -> None:
    if JOB_ID in route.parameters:
        raise ConfigurationError.at(
            route.function,
            f"the path {route.path!r} has the parameter {JOB_ID}, which is the id of a durable job; rename it",
        )
    if ":path}" in route.path:
        raise ConfigurationError.at(
            route.function,
            f"the path {route.path!r} ends with the rest of a path, but each job has a path below it; "
            "use a parameter that is one segment, or take the value from the body",
        )


def _checked_retry(function: Callable[..., Any], retry: object) -> Retry:
    if retry is None:
        return Retry()
    if not isinstance(retry, Retry):
        raise ConfigurationError.at(function, f"retry takes a Retry, as in retry=Retry(attempts=3), not {retry!r}")
    if type(retry.attempts) is not int or not 1 <= retry.attempts <= MAX_ATTEMPTS:
        raise ConfigurationError.at(
            function, f"the attempts of a Retry are a whole number from 1 to {MAX_ATTEMPTS}, not {retry.attempts!r}"
        )
    if not _is_seconds(retry.wait):
        raise ConfigurationError.at(
            function, f"the wait of a Retry is a number of seconds, 0 or more, not {retry.wait!r}"
        )
    return retry


def _checked_keep(function: Callable[..., Any], keep: object) -> float:
    """The option in seconds."""
    seconds: Any = keep
    if isinstance(keep, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", keep)):
        seconds = float(found[1]) * SECONDS[found[2]]
    if not _is_seconds(seconds) or seconds > MAX_KEEP:
        raise ConfigurationError.at(
            function,
            'keep takes seconds, 0 or more, or a time with a unit, as in "90s", "15m", "12h", "7d", and a hundred '
            f"years at most; not {keep!r}",
        )
    return float(seconds)


def _checked_every(function: Callable[..., Any], every: object, zone: object) -> str:
    if not isinstance(every, str) or not isinstance(zone, str):
        raise ConfigurationError.at(
            function,
            f'every and zone are texts, as in every="0 3 * * *", zone="Europe/Berlin", not {every!r}, {zone!r}',
        )
    if zone and not every:
        raise ConfigurationError.at(
            function, f"has zone={zone!r}, which is the zone of every=; add every=, or leave zone out"
        )
    if every:
        try:
            Cron(every, zone or "UTC")
        except CronError as error:
            raise ConfigurationError.at(function, f"every: {error}") from None
    return every


def _checked_max_waiting(function: Callable[..., Any], count: object) -> int | None:
    if count is None or (type(count) is int and count >= 1):
        return count
    raise ConfigurationError.at(function, f"max_waiting must be a whole number, 1 or more, not {count!r}")


def _checked_on_unreadable_save(function: Callable[..., Any], value: object) -> Literal["fail", "restart"]:
    if value not in ("fail", "restart"):
        raise ConfigurationError.at(function, f'on_unreadable_save takes "fail" or "restart", not {value!r}')
    return value


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
