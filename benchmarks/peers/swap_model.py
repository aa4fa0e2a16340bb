"""The versions of a model that all peers of the part `models` serve: 200 MB of floats, and 20 ms for a request.

A request multiplies its values with a part of the model. For the rest of its time the worker waits, as for an
accelerator. With WORK=compute it computes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy
import work

COLUMNS = 4096
SECONDS = 0.020
COMPUTES = os.environ.get("WORK") == "compute"
PART = 128
"""Rows that a request multiplies."""

Weights = Any


def write(folder: Path, number: int, megabytes: int = 200) -> None:
    """Write version `number` of the model. Each version has other bytes everywhere."""
    rows = megabytes * 1_000_000 // (4 * COLUMNS)
    weights = numpy.random.default_rng(number).standard_normal((rows, COLUMNS), numpy.float32)
    weights[0, 0] = number
    numpy.save(folder / "weights.npy", weights)


def load(folder: Path) -> Weights:
    """Read the model into memory, and add it up, so that a model that was not read whole is noticed."""
    weights = numpy.load(folder / "weights.npy")
    if not numpy.isfinite(weights.sum(dtype=numpy.float64)):
        raise ValueError(f"{folder} holds no model")
    return weights


def predict(weights: Weights, values: list[float]) -> dict[str, float]:
    """The score, and the number of the version: it is read from the model itself."""
    end = time.monotonic() + SECONDS
    start = int(abs(values[0]) * 1e6) % (len(weights) - PART)
    column = numpy.resize(numpy.array(values, numpy.float32), COLUMNS)
    score = float(numpy.tanh(weights[start : start + PART] @ column).mean())
    version = int(weights[0, 0])
    if COMPUTES:
        work.spend(end - time.monotonic())
    else:
        time.sleep(max(0.0, end - time.monotonic()))
    return {"score": score, "version": version}
