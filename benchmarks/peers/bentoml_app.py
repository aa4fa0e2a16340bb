"""BentoML: two worker processes, each of which serves HTTP itself."""

from typing import Any

import bentoml
import work


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class App:
    @bentoml.api(route="/noop")
    def noop(self, document: dict[str, Any], /) -> dict[str, Any]:
        return work.noop(document)

    @bentoml.api(route="/burn")
    def burn(self, document: dict[str, Any], /) -> dict[str, Any]:
        return work.burn(document)

    @bentoml.api(route="/compute")
    def compute(self, document: dict[str, Any], /) -> dict[str, bool]:
        return work.compute()
