"""LitServe: the model of the batch part, one by one and by its own batching. It reads only JSON, hence the base64."""

import base64
import sys
from typing import Any

import litserve
import model


class OneByOne(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.layers = model.load()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["values"])

    def predict(self, body: bytes) -> int:
        return model.classes(self.layers, [body])[0]

    def encode_response(self, found: int) -> int:
        return found


class Batched(OneByOne):
    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, bodies: Any) -> Any:
        return model.classes(self.layers, bodies)

    def unbatch(self, output: list[int]) -> list[int]:
        return output


if __name__ == "__main__":
    routes = [
        OneByOne(api_path="/classify"),
        Batched(api_path="/classify-batched", max_batch_size=32, batch_timeout=0.005),
    ]
    server = litserve.LitServer(routes, accelerator="cpu", workers_per_device=2, fast_queue=True)
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), **quiet)
