"""mosec: a worker class for each route; JSON by orjson, by the methods that its documentation leaves to us."""

from typing import Any

import orjson
import work
from mosec import Server, Worker


class JSONWorker(Worker):
    def deserialize(self, data: bytes) -> Any:
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        return orjson.dumps(data)


class Noop(JSONWorker):
    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return work.noop(data)


class Burn(JSONWorker):
    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return work.burn(data)


class Compute(JSONWorker):
    def forward(self, data: dict[str, Any]) -> dict[str, bool]:
        return work.compute()


class Echo(Worker):
    resp_mime_type = "application/octet-stream"

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> bytes:
        return work.echo(data)

    def serialize(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    server = Server()
    for worker, route in ((Noop, "/noop"), (Burn, "/burn"), (Compute, "/compute"), (Echo, "/echo")):
        server.append_worker(worker, num=2, route=route)
    server.run()
