"""mosec: a model for each worker."""

from typing import Any

import big
from mosec import Server, Worker


class Total(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = big.load()

    def forward(self, data: Any) -> dict[str, int]:
        return {"sum": big.total(self.model)}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Total, num=2, route="/sum")
    server.run()
