"""A module of an author, with random number generators in all places that a fork copies."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy

rng = numpy.random.default_rng(42)
old = numpy.random.RandomState(1)
instance = random.Random(7)
table = {"a": [numpy.random.default_rng(1)]}
draw = numpy.random.default_rng(2).integers
half = functools.partial(numpy.random.Generator.integers, numpy.random.default_rng(3))


class Model:
    shared = random.Random(5)

    def __init__(self) -> None:
        self.noise = numpy.random.Generator(numpy.random.MT19937(9))


class Slotted:
    __slots__ = ("empty", "rng")

    def __init__(self) -> None:
        self.rng = random.Random(3)


model = Model()
slotted = Slotted()


def closed(rng: Any = random.Random(8)) -> int:  # noqa: B008 - as authors do
    return int(rng.getrandbits(60))


def numbers() -> dict[str, int]:
    return {
        "rng": int(rng.integers(1 << 60)),
        "spawned": int(rng.spawn(1)[0].integers(1 << 60)),
        "old": int(old.randint(1 << 30)),
        "instance": instance.getrandbits(60),
        "table": int(table["a"][0].integers(1 << 60)),
        "draw": int(draw(1 << 60)),
        "half": int(half(1 << 60)),
        "class": Model.shared.getrandbits(60),
        "attribute": int(model.noise.integers(1 << 60)),
        "slot": slotted.rng.getrandbits(60),
        "default": closed(),
        "numpy": int(numpy.random.randint(1 << 30)),
        "random": random.getrandbits(60),
    }
