"""BentoML: the last service of a chain."""

import bentoml
import chain_job


@bentoml.service(workers=1, threads=4, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Last:
    @bentoml.api(route="/json")
    def message(self) -> dict[str, object]:
        return {"message": "hello", "answer": 42}

    @bentoml.api(route="/compute")
    def compute(self, key: str) -> str:
        return chain_job.compute(key)
