"""MLServer: the model of the part `models`. Its repository API loads the model anew from the folder."""

from pathlib import Path

import numpy
import swap_model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    async def load(self) -> bool:
        assert self.settings.parameters is not None
        self.weights = swap_model.load(Path(self.settings.parameters.uri or ""))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        values = NumpyCodec.decode_input(payload.inputs[0])
        found = swap_model.predict(self.weights, values.tolist())
        outputs = [NumpyCodec.encode_output(name, numpy.array([value])) for name, value in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
