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
