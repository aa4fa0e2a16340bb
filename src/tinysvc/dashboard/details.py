"""What a server process knows beside its numbers: what each worker runs, the recent errors, its problems.

It travels to the process that serves the page as the label of one gauge, so it takes the way of all metrics: from each
server process through the supervisor. `telemetry/exposition.py` does not show it to Prometheus.
"""

from __future__ import annotations

import msgspec

from ..telemetry.instruments import metric_of
from ..telemetry.snapshots import INTERNAL, Metric

NAME = f"{INTERNAL}details"


class WorkerDetails(msgspec.Struct):
    """A worker now. Times are in seconds, sizes in bytes."""

    process: int
    """Process id of its server process."""
    pool: str
    number: int
    pid: int
    """0: not known."""
    state: str
    age: float
    jobs: int
    """Jobs that it has been given."""
    is_replaced: bool = False
    """It ends when its successor is ready and its job has ended."""
    runs: str = ""
    """The route of its job, as in "POST /predict"."""
    request: str = ""
    """The id of the request that its job belongs to."""
    running: float = 0.0
    memory: int = 0
    growth: int = 0
    """Bytes by which its memory has grown steadily; 0: it has not."""
    growth_time: float = 0.0
    mostly: str = ""
    """The route that it was seen with most often."""
    artifact: str = ""
    """The versions of the artifacts that it has open, as in "churn@8"."""


class ArtifactDetails(msgspec.Struct):
    """An artifact that a server process serves."""

    artifact: str
    """Its reference, as in "churn@production"."""
    version: int | None
    age: float | None
    """Seconds since its alias was read; None for a version by number, or before the first look."""
    problem: str = ""


class ErrorDetails(msgspec.Struct):
    """A response with a status of 500 or more."""

    time: float
    """Unix time."""
    route: str
    status: int
    error: str
    """The type of the exception."""
    text: str
    request: str
    """The id of the request."""


class ProcessDetails(msgspec.Struct):
    """One server process."""

    process: int
    workers: list[WorkerDetails]
    errors: list[ErrorDetails]
    problems: list[str]
    """Sentences about a part of the service that does not work."""
    artifacts: list[ArtifactDetails] = []
    blocker: str = ""
    """The route that has blocked the event loop within the last minute."""


_decoder = msgspec.json.Decoder(ProcessDetails)


def details_metric(details: ProcessDetails) -> Metric:
    """The gauge that carries the details."""
    text = msgspec.json.encode(details).decode()
    return metric_of("gauge", NAME, "For the dashboard.", [((text,), 1.0)], ["details"])


def is_details(metric: Metric) -> bool:
    return metric.name == NAME


def decode_details(metric: Metric) -> list[ProcessDetails]:
    """The details of all processes, in the order of their process ids."""
    return sorted((_decoder.decode(point.labels[0]) for point in metric.points), key=lambda each: each.process)
