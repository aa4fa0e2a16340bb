"""The nearest of 20,000 vectors: inference in batches over shared memory, training in a separate pool. Try:

curl -d '{"values": [1, 0, 0, 0, 0, 0, 0, 0]}' -H 'content-type: application/json' http://127.0.0.1:8000/vectors
curl -N -X POST 'http://127.0.0.1:8000/vectors/clusters?count=5'
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from tinysvc import Batch, Event, HTTPError, Pool, Service, cpu_resource, cpu_route

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNT, DIMENSIONS = 20_000, 8
ROUNDS = 100
Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""The squares of larger numbers overflow in 32 bits."""


@dataclass
class Query:
    values: Annotated[list[Number], msgspec.Meta(min_length=DIMENSIONS, max_length=DIMENSIONS)]


@dataclass
class Nearest:
    index: int
    distance: float


@cpu_resource(shared=True)
def vectors() -> "NDArray[Any] | None":
    """Made once, before the workers are forked, so all workers share the memory."""
    if numpy is None:
        return None
    return numpy.random.default_rng(seed=1).normal(size=(COUNT, DIMENSIONS)).astype("f4")


@cpu_route("/", methods=["POST"], timeout=5.0, batch=Batch(size=64, wait=0.002))
def nearest(queries: list[Query], vectors: Any) -> list[Nearest]:
    """The nearest vector to each query. One matrix product serves all requests of the same moment."""
    table = _needed(vectors)
    asked = numpy.array([query.values for query in queries], dtype="f4")
    squares = (asked**2).sum(1)[:, None] - 2 * asked @ table.T + (table**2).sum(1)
    indexes = squares.argmin(1)
    return [Nearest(int(i), float(max(0.0, row[i]) ** 0.5)) for i, row in zip(indexes, squares, strict=True)]


@cpu_route("/clusters", methods=["POST"], timeout=120.0, pool="training", on_disconnect="cancel")
def clusters(vectors: Any, count: Annotated[int, msgspec.Meta(ge=2, le=50)] = 8) -> Iterator[Event]:
    """Lloyd's algorithm, with an event for each round. It stops when nothing moves, or when the client disconnects."""
    table = _needed(vectors)
    centres = table[:count].copy()
    for number in range(ROUNDS):
        squares = ((table[:, None, :] - centres) ** 2).sum(2)
        nearest_centre = squares.argmin(1)
        moved = numpy.array([table[nearest_centre == i].mean(0) for i in range(count)])
        shift = float(abs(moved - centres).max())
        centres = moved
        yield Event({"round": number, "spread": float(squares.min(1).mean()), "shift": shift}, event="round")
        if shift < 1e-3:
            break
    yield Event({"centres": centres.tolist()}, event="result")


def _needed(vectors: Any) -> Any:
    if vectors is None:
        raise HTTPError(501, "This needs numpy: pip install 'tinysvc[examples]'")
    return vectors


service = Service(sys.modules[__name__], pools={"training": Pool(workers=1, queue_size=2)})
