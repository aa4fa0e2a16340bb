"""LitServe: an API for each route, with two workers each, its fast queue, and as many HTTP processes as it advises."""

import sys
from typing import Any

import litserve
import work


class Noop(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, document: dict[str, Any]) -> dict[str, Any]:
        return work.noop(document)


class Burn(Noop):
    def predict(self, document: dict[str, Any]) -> dict[str, Any]:
        return work.burn(document)


class Compute(Noop):
    def predict(self, document: dict[str, Any]) -> dict[str, Any]:
        return {**work.compute()}


if __name__ == "__main__":
    routes = [Noop(api_path="/noop"), Burn(api_path="/burn"), Compute(api_path="/compute")]
    server = litserve.LitServer(routes, accelerator="cpu", workers_per_device=2, fast_queue=True)
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=int(sys.argv[1]), **quiet)
