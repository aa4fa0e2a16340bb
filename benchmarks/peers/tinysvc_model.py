"""tinysvc: the model of the batch part, one by one and in batches."""

from collections.abc import Iterator

import model

from tinysvc import Batch, cpu_resource, cpu_route


@cpu_resource
def layers() -> Iterator[model.Layers]:
    yield model.load()


@cpu_route("/classify", methods=["POST"])
def classify(body: bytes, layers: model.Layers) -> int:
    return model.classes(layers, [body])[0]


@cpu_route("/classify-batched", methods=["POST"], batch=Batch(size=32, wait=0.005))
def classify_batched(body: list[bytes], layers: model.Layers) -> list[int]:
    return model.classes(layers, body)
