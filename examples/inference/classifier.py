"""Find the labels of rows with the network that `training` has published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from tinysvc import Artifact, HTTPError, Models, cpu_resource, cpu_route, io_route

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float64]

REFERENCE = "classifier@production"
CANDIDATE = "classifier@staging"


@dataclass
class Network:
    """A published network: its weights, layer by layer, and what it expects and finds."""

    weights: list[Floats]
    mean: Floats
    deviation: Floats
    labels: list[str]

    @classmethod
    def read(cls, folder: Path) -> Network:
        with numpy.load(folder / "network.npz") as file:
            layers = sorted(name for name in file.files if name.startswith("weights"))
            weights = [file[name] for name in layers]
            return cls(weights, file["mean"], file["deviation"], file["labels"].tolist())

    def probabilities(self, rows: Floats) -> Floats:
        """The probability of each label, row by row."""
        values = (rows - self.mean) / self.deviation
        *hidden, last = self.weights
        for weights in hidden:
            values = numpy.tanh(values @ weights[:-1] + weights[-1])
        scores = values @ last[:-1] + last[-1]
        powers: Floats = numpy.exp(scores - scores.max(1, keepdims=True))
        found: Floats = powers / powers.sum(1, keepdims=True)
        return found


def is_sane(network: Network | None) -> bool:
    """Whether a new version may serve: it finds probabilities for the mean of its own rows."""
    if network is None:
        return True
    found = network.probabilities(network.mean[None])
    return found.shape == (1, len(network.labels)) and bool(numpy.isfinite(found).all())


def disagreement(served: list[dict[str, Any]], candidate: list[dict[str, Any]]) -> float:
    """The share of the rows whose label the candidate would change: the dashboard shows its mean."""
    changed = sum(bool(one["label"] != other["label"]) for one, other in zip(served, candidate, strict=True))
    return changed / len(served)


@cpu_resource(shared=True, check=is_sane)
def network(
    folder: Annotated[Path | None, Artifact(REFERENCE), Artifact(CANDIDATE, shadow=0.2, compare=disagreement)],
) -> Network | None:
    """Read once for all workers. None before the first version is published.

    A fifth of the requests are computed with the version in staging, too, when workers are idle: before its promotion,
    the dashboard compares the two.
    """
    return Network.read(folder) if folder and numpy else None


Number = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
"""As in the tables of `training`. A greater one may overflow, and then no probability is found."""


@dataclass
class Rows:
    rows: Annotated[list[list[Number]], msgspec.Meta(min_length=1, max_length=1000)]


@dataclass
class Found:
    label: str
    probability: float


@cpu_route("/", methods=["POST"], timeout=2.0, responses={501: "numpy is not installed."})
def classify(table: Rows, network: Network | None) -> list[Found]:
    """The most probable label of each row. The header X-Artifact names the version that found it."""
    if numpy is None:
        raise HTTPError(501, "This needs numpy: pip install 'tinysvc[onnx]'")
    if network is None:
        raise HTTPError(503, f"There is no {REFERENCE} yet: train one with alias=production.")
    width = len(network.mean)
    if wrong := [number for number, row in enumerate(table.rows) if len(row) != width]:
        raise HTTPError(422, f"Row {wrong[0]} has {len(table.rows[wrong[0]])} numbers; the network takes {width}.")
    found = network.probabilities(numpy.array(table.rows))
    best = found.argmax(1)
    return [Found(network.labels[index], float(row[index])) for index, row in zip(best, found, strict=True)]


@io_route("/", responses={503: "The store of models is not available."})
def versions(models: Models) -> dict[str, object]:
    """The version that is served, and all that are published. The store blocks: so this is no `async def`."""
    return {"served": models.served(REFERENCE), "published": models.versions("classifier")}
