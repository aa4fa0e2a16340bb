"""job_routes.py: the record of `@job_route`, and the remedies for wrong options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tinysvc import ConfigurationError, Retry, job_route
from tinysvc.service.job_options import JobOptions
from tinysvc.service.routes import Route, route_of


def declared(**options: Any) -> Route:
    def handler() -> None: ...

    job_route("/trainings", **options)(handler)
    found = route_of(handler)
    assert found is not None
    return found


def durable(**options: Any) -> JobOptions:
    found = declared(**options).durable
    assert found is not None
    return found


def test_job_route_is_a_cpu_route_that_is_durable() -> None:
    route = declared(pool="training", limit=2, max_body_size=10, summary="Fit a model.")
    assert (route.kind, route.methods, route.pool, route.limit, route.max_body_size) == (
        "cpu",
        ("POST",),
        "training",
        2,
        10,
    )
    assert (route.timeout, route.about) == (3600, {"summary": "Fit a model."})
    assert route.durable == JobOptions()


def test_options_of_the_job_are_recorded() -> None:
    retry = Retry(attempts=7, wait=1)
    assert durable(retry=retry, on_unreadable_save="restart") == JobOptions(retry=retry, on_unreadable_save="restart")
    assert durable(max_waiting=100) == JobOptions(max_waiting=100)
    options = durable(every="0 3 * * *", zone="Europe/Berlin")
    assert (options.every, options.zone) == ("0 3 * * *", "Europe/Berlin")
    assert durable(every="0 3 * * *").zone == "UTC"
    assert declared(timeout=0).timeout_or(3600) is None


@pytest.mark.parametrize(
    ("keep", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("12h", 43200),
        ("7d", 604800),
        ("2w", 1209600),
        ("0.5h", 1800),
        ("1 d", 86400),
        (60, 60),
        (0, 0),
    ],
)
def test_keep_is_a_time_with_a_unit_or_seconds(keep: str | float, seconds: float) -> None:
    assert durable(keep=keep).keep == seconds


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retry": 3}, r"retry takes a Retry, as in retry=Retry\(attempts=3\), not 3"),
        ({"retry": Retry(attempts=0)}, "the attempts of a Retry are a whole number from 1 to 1000000, not 0"),
        ({"retry": Retry(attempts=True)}, "the attempts of a Retry are a whole number from 1 to 1000000, not True"),
        ({"retry": Retry(wait=-1)}, "the wait of a Retry is a number of seconds, 0 or more, not -1"),
        ({"retry": Retry(wait=float("nan"))}, "the wait of a Retry"),
        ({"keep": "7 days"}, "keep takes seconds, 0 or more, or a time with a unit, .*not '7 days'"),
        ({"keep": -1}, "keep takes seconds, 0 or more"),
        ({"keep": 1e300}, "a hundred years at most; not 1e.300"),
        ({"keep": "99999999d"}, "a hundred years at most; not '99999999d'"),
        ({"retry": Retry(attempts=10**30)}, "a whole number from 1 to 1000000, not 10000"),
        ({"keep": True}, "keep takes seconds, 0 or more"),
        ({"on_unreadable_save": "skip"}, 'on_unreadable_save takes "fail" or "restart", not \'skip\''),
        ({"every": "0 3 * *"}, "every: '0 3 [*] [*]' has 4 fields; write five"),
        ({"every": "0 25 * * *"}, "every: '0 25 .*' cannot be read: bad hour"),
        ({"every": 900}, r'every and zone are texts, as in every="0 3 \* \* \*"'),
        ({"every": "0 3 * * *", "zone": "Berlin"}, "every: there is no time zone 'Berlin'"),
        ({"zone": "Europe/Berlin"}, "has zone='Europe/Berlin', which is the zone of every="),
        ({"timeout": -1}, "timeout must be a number of seconds, 0 or more"),
        ({"pool": ""}, "pool takes the name of a pool"),
        ({"limit": 0}, "limit must be a whole number"),
        ({"max_waiting": 0}, "max_waiting must be a whole number, 1 or more, not 0"),
        ({"max_waiting": True}, "max_waiting must be a whole number"),
        ({"methods": ["GET"]}, "methods is no option of a job route: POST submits a job"),
        ({"batch": 3}, "batch is no option of a job route: a durable job runs by itself"),
        ({"cache": 3}, "cache is no option of a job route: .* Idempotency-Key"),
        ({"hedge": 3}, "hedge is no option of a job route"),
        ({"idempotent": True}, "idempotent is no option of a job route"),
        ({"on_disconnect": "cancel"}, "on_disconnect is no option of a job route"),
        ({"retries": 3}, "'retries' is not an option of a job route; did you mean retry"),
        ({"colour": 3}, "'colour' is not an option of a job route; the options are timeout, retry, .*, example"),
        ({"tags": "users"}, "tags is a list of names"),
        ({"middleware": 3}, "middleware takes a list of functions"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"handler .*test_job_routes.py:\d+.*{says}"):
        declared(**options)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/trainings/{job_id}", "has the parameter job_id, which is the id of a durable job; rename it"),
        ("/trainings/{rest:path}", "ends with the rest of a path, but each job has a path below it"),
        ("trainings", 'must begin with "/"'),
    ],
)
def test_wrong_paths_are_refused(path: str, says: str) -> None:
    def handler() -> None: ...

    with pytest.raises(ConfigurationError, match=says):
        job_route(path)(handler)


def test_decorator_without_a_path_is_refused() -> None:
    def handler() -> None: ...

    with pytest.raises(ConfigurationError, match=r'write @job_route\("/path"\), with the path that it serves'):
        job_route(handler)  # type: ignore[arg-type]


def test_generator_is_refused() -> None:
    def handler() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match=r"streams, but a durable job has one result.*job.progress"):
        job_route("/")(handler)
