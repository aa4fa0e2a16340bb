"""mosec: the model of the batch part, one by one and by mosec's own dynamic batching."""

import model
import orjson
from mosec import Server, Worker


class OneByOne(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.layers = model.load()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: int) -> bytes:
        return orjson.dumps(data)

    def forward(self, data: bytes) -> int:
        return model.classes(self.layers, [data])[0]


class Batched(OneByOne):
    def forward(self, data: list[bytes]) -> list[int]:
        return model.classes(self.layers, data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(OneByOne, num=2, route="/classify")
    server.append_worker(Batched, num=2, max_batch_size=32, max_wait_time=5, route="/classify-batched")
    server.run()
