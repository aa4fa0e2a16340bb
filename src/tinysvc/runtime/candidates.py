"""Candidates: versions of artifacts that are tried beside those that serve, on a share of the requests.

    share     request ──> which variant? ──┬─> the one that serves ──> response
                                           └─> candidate           ──> response

    shadow    request ──> the one that serves ──> response ──> client
                                        └─> a job of its own, if a worker is idle: candidate ──> compare ──> figures

A candidate is a second endpoint of its route in the program of the workers: see candidate_endpoints.py. model_swaps.py
brings it into the workers as any other version. Until then, and while it is the version that serves, nothing is tried.

shadows.py runs the jobs of `shadow`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING

from ..core.errors import ConfigurationError
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..service.plan import Plan
from ..telemetry.instruments import Registry
from .candidate_metrics import CandidateMetrics, VariantMetrics
from .endpoint_parts import Candidate, Endpoint
from .pool_metrics import outcome_name
from .shadows import Shadows

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..models.artifact import Artifact
    from ..pool.external import ExternalPool

Served = Callable[[str], int | None]
"""The version that is served under a reference."""

Make = Callable[[int], Handler]
"""Makes the cpu handler of an endpoint, by its number."""


def candidate_endpoint(plan: Plan, artifact: Artifact, first: Endpoint, number: int) -> Endpoint:
    """The second endpoint of a route, which has the candidate open. ConfigurationError if the route cannot have any.

    Args:
        plan: The route.
        artifact: Its candidate.
        first: Its first endpoint.
        number: The position of the first endpoint in the program.
    """
    if artifact.share is not None and plan.route.cache:
        raise ConfigurationError.at(
            plan.route.function,
            f"has cache=, and its candidate {artifact} has share=: a stored response of one variant would be sent "
            "to the clients of the other; use shadow=, or no cache",
        )
    artifacts = {
        name: {parameter: (taken.candidate or taken.artifact).reference for parameter, taken in each.items()}
        for name, each in plan.artifacts.items()
    }
    return first._replace(artifacts=artifacts, candidate=Candidate(artifact.reference, number, artifact.compare))


class Variants:
    """The two variants of a route.

    Args:
        artifact: The candidate.
        served: The reference of the version that serves.
        versions: Which version is served under a reference.
    """

    def __init__(self, artifact: Artifact, served: str, versions: Served) -> None:
        self.artifact = artifact
        self._served = served
        self._versions = versions

    @property
    def version(self) -> int | None:
        """The candidate's version; None if there is nothing to try."""
        version = self._versions(self.artifact.reference)
        return None if version == self._versions(self._served) and self._is_same_artifact else version

    @property
    def _is_same_artifact(self) -> bool:
        return self.artifact.reference.partition("@")[0] == self._served.partition("@")[0]


class Candidates:
    """The candidates of a running service.

    Args:
        versions: Which version is served under a reference.
        registry: Takes the figures; None: they are discarded.
    """

    def __init__(self, versions: Served, registry: Registry | None) -> None:
        self._versions = versions
        self._metrics = CandidateMetrics(registry or Registry())
        self._numbers: dict[tuple[Plan, int], int] = {}  # of the candidate's endpoint, by that of the first one
        self._shadows: list[Shadows] = []

    def add_endpoints(self, endpoints: list[Endpoint], plans: list[Plan]) -> None:
        """Add the candidates' endpoints to those of a pool, and the routes of these endpoints to theirs.

        A response of gRPC has no shadow: `compare` would get its encoded message.
        """
        for number, plan in enumerate(plans.copy()):
            candidate = plan.candidate
            if candidate is not None and (endpoints[number].messages is None or candidate.share is not None):
                self._numbers[plan, number] = len(endpoints)
                endpoints.append(candidate_endpoint(plan, candidate, endpoints[number], number))
                plans.append(plan)

    def around(self, plan: Plan, make: Make, pool: ProcessPoolExecutor | ExternalPool, timeout: float | None) -> Make:
        """`make` for a route that has a candidate: its handlers try it.

        Args:
            plan: The route.
            make: Makes the cpu handler of an endpoint.
            pool: The pool of the route.
            timeout: Seconds that a job of the route may take.
        """
        artifact = plan.candidate
        assert artifact is not None
        taken = [each for artifacts in plan.artifacts.values() for each in artifacts.values()]
        served = next(each.artifact.reference for each in taken if each.candidate is not None)
        variants = Variants(artifact, served, self._versions)
        metrics = self._metrics.of(plan.path, artifact.reference)

        def with_candidate(number: int) -> Handler:
            first, second = make(number), self._numbers.get((plan, number))
            if second is None:
                return first
            if artifact.share is not None:
                return shared_out(variants, first, make(second), artifact.share, metrics)
            shadows = Shadows(pool, second, variants, timeout, metrics)
            self._shadows.append(shadows)
            return shadows.around(first, artifact.shadow or 0.0)

        return with_candidate

    async def aclose(self) -> None:
        """End the jobs of `shadow` that run."""
        await asyncio.gather(*(shadows.aclose() for shadows in self._shadows))


def shared_out(variants: Variants, first: Handler, second: Handler, share: float, metrics: VariantMetrics) -> Handler:
    """Send a share of the requests to the second handler."""
    sticky, key = variants.artifact.sticky, variants.artifact.reference.encode()

    def is_chosen(request: Request) -> bool:
        value = request.headers.get(sticky, "") if sticky else ""
        return (fraction_of(value, key) if value else random.random()) < share

    async def handle(request: Request) -> Response:
        if variants.version is None:
            return await first(request)
        chosen = is_chosen(request)
        counted = metrics.candidate if chosen else metrics.served
        began = monotonic()
        try:
            response = await (second if chosen else first)(request)
        except Exception as error:
            counted.end(outcome_name(error), monotonic() - began)
            raise
        counted.end("error" if response.status >= 500 else "ok", monotonic() - began)
        return response

    return handle


def fraction_of(value: str, key: bytes) -> float:
    """A number from 0 to below 1, always the same for a value: with a bigger share, none leaves the candidate again."""
    digest = blake2b(value.encode(errors="surrogateescape"), digest_size=8, key=key[:64]).digest()
    return int.from_bytes(digest) / 2**64
