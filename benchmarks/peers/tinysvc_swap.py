"""tinysvc: the model of the part `models`, in a pool whose workers share it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import swap_model

from tinysvc import Artifact, cpu_resource, cpu_route


@cpu_resource(shared=True)
def weights(model: Annotated[Path, Artifact("swap@production")]) -> swap_model.Weights:
    return swap_model.load(model)


@cpu_route("/predict", methods=["POST"])
def predict(body: dict[str, list[float]], weights: swap_model.Weights) -> dict[str, float]:
    return swap_model.predict(weights, body["values"])
