"""The model that all peers of the batch part ask: three layers of 1024 x 1024, four bytes a weight, on one thread."""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # two workers on two cores; tinysvc would set it, the others do not

import numpy

SIZE, LAYERS = 1024, 3

Layers = list[numpy.ndarray]


def load() -> Layers:
    random = numpy.random.default_rng(0)
    return [random.standard_normal((SIZE, SIZE), numpy.float32) / SIZE**0.5 for _ in range(LAYERS)]


def classes(layers: Layers, bodies: list[bytes]) -> list[int]:
    """For each body, 1024 floats as raw bytes, the place of the largest output: one matrix product a layer for all."""
    values = numpy.frombuffer(b"".join(bodies), numpy.float32).reshape(len(bodies), SIZE)
    for layer in layers:
        values = numpy.maximum(values @ layer, 0)
    return values.argmax(axis=1).tolist()
