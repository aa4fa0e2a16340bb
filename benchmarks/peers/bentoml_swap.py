"""BentoML: the model of the part `models`, from $MODEL_FOLDER. It reads another version when it starts."""

import os
from pathlib import Path

import bentoml
import swap_model


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Model:
    def __init__(self) -> None:
        self.weights = swap_model.load(Path(os.environ["MODEL_FOLDER"]))

    @bentoml.api
    def predict(self, values: list[float]) -> dict[str, float]:
        return swap_model.predict(self.weights, values)
