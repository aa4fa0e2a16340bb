"""BentoML: the model of the batch part, one by one and in its adaptive batches. It reads JSON, hence the base64."""

import base64

import bentoml
import model


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Model:
    def __init__(self) -> None:
        self.layers = model.load()

    @bentoml.api(route="/classify")
    def one_by_one(self, values: list[str]) -> list[int]:
        return self._classes(values)

    @bentoml.api(route="/classify-batched", batchable=True, max_batch_size=32)
    def batched(self, values: list[str]) -> list[int]:
        return self._classes(values)

    def _classes(self, values: list[str]) -> list[int]:
        return model.classes(self.layers, [base64.b64decode(each) for each in values])
