"""tinysvc: a model for each worker, or with $SHARED one for all."""

import os
from collections.abc import Iterator

import big
import numpy

from tinysvc import cpu_resource, cpu_route


@cpu_resource(shared="SHARED" in os.environ)
def model() -> Iterator[numpy.ndarray]:
    yield big.load()


@cpu_route("/sum", methods=["POST"])
def total(model: numpy.ndarray) -> dict[str, int]:
    return {"sum": big.total(model)}
