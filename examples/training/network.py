"""A small neural network in numpy: two hidden layers, trained by gradient descent with momentum (Adam)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

HAS_NUMPY = numpy is not None

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]
    Integers = NDArray[numpy.int64]

WIDTH = 48
BATCH = 64
RATE = 0.003


@dataclass
class Table:
    """Rows of numbers, each with the number of its label. A fifth of the rows is not trained on, but tested."""

    rows: Floats
    labels: Integers
    names: list[str]
    mean: Floats
    deviation: Floats
    """Of each column, before the rows were normalised by them."""

    @property
    def tested(self) -> slice:
        return slice(0, max(1, len(self.rows) // 5))

    @property
    def trained(self) -> slice:
        return slice(self.tested.stop, None)


def read_table(content: bytes) -> Table:
    """The table of a CSV: numbers, and a label in the last column. ValueError names the first wrong line."""
    lines = [line.split(",") for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    if lines and not _is_number(lines[0][0]):
        del lines[0]  # names of columns
    if len(lines) < 5:
        raise ValueError(f"The table has {len(lines)} rows; a training needs 5 or more.")
    rows = []
    for number, (*numbers, _) in enumerate(lines, 1):
        if len(numbers) != len(lines[0]) - 1 or not numbers or not all(map(_is_number, numbers)):
            raise ValueError(f"Row {number} is no list of numbers with a label at its end, as long as row 1.")
        rows.append([float(each) for each in numbers])
    names = sorted({line[-1].strip() for line in lines})
    labels = numpy.array([names.index(line[-1].strip()) for line in lines])
    order = numpy.random.default_rng(seed=1).permutation(len(rows))
    table = numpy.array(rows)
    mean, deviation = table.mean(0), numpy.where(table.std(0) > 0, table.std(0), 1)
    return Table(((table - mean) / deviation)[order], labels[order], names, mean, deviation)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < 1e30  # false for NaN, too
    except ValueError:
        return False


class Network:
    """The weights, and all else that the next epoch depends on: so a copy of it on disk is a place to go on from."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.random = numpy.random.default_rng(seed=2)
        sizes = [inputs, WIDTH, WIDTH, outputs]
        self.weights = [self.random.normal(size=(above + 1, below)) / above**0.5 for above, below in pairwise(sizes)]
        self.means = [numpy.zeros_like(each) for each in self.weights]
        self.squares = [numpy.zeros_like(each) for each in self.weights]
        self.steps = 0

    def epoch(self, table: Table) -> float:
        """Train once on all rows. The mean loss (cross-entropy) is returned."""
        rows, labels = table.rows[table.trained], table.labels[table.trained]
        order = self.random.permutation(len(rows))
        losses = [self._step(rows[part], labels[part]) for part in numpy.split(order, range(BATCH, len(rows), BATCH))]
        return float(numpy.mean(losses))

    def accuracy(self, table: Table) -> float:
        """The share of the tested rows whose label is found."""
        found = self._layers(table.rows[table.tested])[-1].argmax(1)
        return float((found == table.labels[table.tested]).mean())

    def write(self, file: Path, table: Table) -> None:
        """Write all that is needed to find labels: the weights, and what rows and labels mean."""
        weights = {f"weights{number}": each for number, each in enumerate(self.weights)}
        labels = numpy.array(table.names)
        numpy.savez(file, mean=table.mean, deviation=table.deviation, labels=labels, **weights)

    def _layers(self, rows: Floats) -> list[Floats]:
        """The rows, and the output of each layer. The last one has the logarithm of each label's probability."""
        layers = [rows]
        for weights in self.weights[:-1]:
            layers.append(numpy.tanh(layers[-1] @ weights[:-1] + weights[-1]))
        scores = layers[-1] @ self.weights[-1][:-1] + self.weights[-1][-1]
        scores -= scores.max(1, keepdims=True)
        return [*layers, scores - numpy.log(numpy.exp(scores).sum(1, keepdims=True))]

    def _step(self, rows: Floats, labels: Integers) -> float:
        """One step down the gradient (Adam: Kingma and Ba, 2014). The loss before the step is returned."""
        *layers, logarithms = self._layers(rows)
        picked = numpy.arange(len(rows)), labels
        error = numpy.exp(logarithms)
        error[picked] -= 1
        error /= len(rows)
        self.steps += 1
        rate = RATE * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        for number in reversed(range(len(self.weights))):
            gradient = numpy.vstack([layers[number].T @ error, error.sum(0)])
            error = error @ self.weights[number][:-1].T * (1 - layers[number] ** 2)
            self.means[number] += 0.1 * (gradient - self.means[number])
            self.squares[number] += 0.001 * (gradient**2 - self.squares[number])
            self.weights[number] -= rate * self.means[number] / (self.squares[number] ** 0.5 + 1e-8)
        return float(-logarithms[picked].mean())


def spirals(count: int) -> bytes:
    """A CSV with points of three spirals: easy to see, and hard for a model that can only draw straight lines."""
    random = numpy.random.default_rng(seed=3)
    lines = ["x,y,spiral"]
    for number, name in enumerate(("red", "green", "blue")):
        radius = numpy.linspace(0.05, 1, count)
        angle = 2 * numpy.pi * (number / 3 + 1.2 * radius) + random.normal(scale=0.12, size=count)
        points = zip(radius * numpy.sin(angle), radius * numpy.cos(angle), strict=True)
        lines += [f"{x:.4f},{y:.4f},{name}" for x, y in points]
    return "\n".join(lines).encode() + b"\n"
