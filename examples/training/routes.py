"""The job that trains, and a page that starts, watches and cancels trainings."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tinysvc import HTTPError, Job, Models, Pool, Query, Response, Retry, Service, cpu_route, io_route, job_route

from . import network
from .network import Network

PAGE = Path(__file__).with_name("page.html").read_text()

Epochs = Annotated[int, Query(), msgspec.Meta(ge=1, le=100_000)]
Pause = Annotated[float, Query(), msgspec.Meta(ge=0, le=10)]
Alias = Annotated[Literal["staging", "production"], Query()]


@dataclass
class Summary:
    rows: int
    labels: list[str]
    epochs: int
    loss: float
    accuracy: float
    went_on_from: int
    """Epochs that an earlier attempt had finished: 0 without a crash or a restart."""
    published: str
    """The version of the model: `inference` serves it if it is in production."""


@job_route("/trainings", pool="networks", timeout=3600, retry=Retry(attempts=3, wait=5), keep="7d")
def train(
    body: bytes, job: Job, models: Models, epochs: Epochs = 200, pause: Pause = 0.0, alias: Alias = "staging"
) -> Summary:
    """Fit a network to the rows of a CSV, and publish it. `pause`: seconds between two epochs, to see a short training.

    `alias`: `inference` serves the version in `production`; one in `staging` waits for a promotion.
    """
    needs_numpy()
    try:
        table = network.read_table(body)
    except ValueError as error:
        raise HTTPError(422, str(error)) from None  # a 4xx is final: the same table does not get better
    model, start, loss = job.saved or (Network(table.rows.shape[1], len(table.names)), 0, 0.0)
    for epoch in range(start, epochs):
        loss = model.epoch(table)
        job.save((model, epoch + 1, loss))
        seen = {"epoch": epoch + 1, "loss": loss, "accuracy": model.accuracy(table), "process": os.getpid()}
        job.progress((epoch + 1) / epochs, **seen)
        time.sleep(pause)
    accuracy = model.accuracy(table)
    with models.publish("classifier", alias=alias, meta={"accuracy": accuracy, "rows": len(table.rows)}) as new:
        model.write(new.path / "network.npz", table)
    return Summary(len(table.rows), table.names, epochs, loss, accuracy, start, f"classifier@{new.version}")


@cpu_route("/spirals.csv")
def spirals(count: Annotated[int, Query(), msgspec.Meta(ge=2, le=10_000)] = 400) -> Response:
    """A table to train on: points of three spirals."""
    needs_numpy()
    return Response(network.spirals(count), content_type="text/csv")


@io_route("/")
async def page() -> Response:
    """The page."""
    return Response(PAGE, content_type="text/html; charset=utf-8")


def needs_numpy() -> None:
    if not network.HAS_NUMPY:
        raise HTTPError(501, "This needs numpy: pip install 'tinysvc[examples]'")


service = Service(sys.modules[__name__], name="training", pools={"networks": Pool(workers=1)})
