"""The requests that a route with `@job_route` serves.

The endpoints, the check of paths, the OpenAPI document, the route table and the pages read this one table.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

JOB_ID = "job_id"
"""The parameter of a path that holds the id of a durable job."""

VerbName = Literal["submit", "list", "status", "result", "cancel", "retry"]


class Verb(NamedTuple):
    """One request that a job route serves."""

    name: VerbName
    method: str
    suffix: str
    """The part of the path after that of the route."""

    def path(self, route_path: str) -> str:
        """The whole path, with parameters as the router reads them.

        Args:
            route_path: Path of the job route with its prefixes, as in "/trainings".
        """
        return (route_path.rstrip("/") + self.suffix if self.suffix else route_path) or "/"


VERBS = (
    Verb("submit", "POST", ""),
    Verb("list", "GET", ""),
    Verb("status", "GET", f"/{{{JOB_ID}}}"),
    Verb("cancel", "DELETE", f"/{{{JOB_ID}}}"),
    Verb("result", "GET", f"/{{{JOB_ID}}}/result"),
    Verb("retry", "POST", f"/{{{JOB_ID}}}/retry"),
)
VERB: dict[VerbName, Verb] = {verb.name: verb for verb in VERBS}
"""Each verb by its name."""

# Limits of the values in these requests

MAX_PRIORITY = 100
"""Priorities are from -100 to 100."""

MAX_AFTER = 10 * 366 * 86400.0
"""Seconds, ten years: a later start is a mistake in the unit."""

MAX_KEY = 255
"""Characters of an Idempotency-Key, as Stripe's API allows."""

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
"""Durable jobs on one page: more than a person reads, and a few milliseconds of work for the store."""
